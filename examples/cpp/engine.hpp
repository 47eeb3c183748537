// What judges a frame: ONNX Runtime on a graph (judge.cpp), or TensorRT on an engine.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bundle.hpp"

/// This machine or this program lacks what was asked for. The program ends with code 3.
struct Missing : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// What the engine said of one image.
struct Judgement {
    std::string category;
    double score;
    double margin;
    std::vector<float> map;
    int rows, columns;
};

class Engine {
  public:
    /// `mode` is the manifest's category_mode; `given` the index of the category that `input` takes.
    Engine(const std::string& mode, std::vector<std::string> categories, std::size_t given)
        : given_(static_cast<std::int32_t>(given)), takes_category_(mode == "input"),
          gives_category_(mode == "auto"), categories_(std::move(categories)) {}
    virtual ~Engine() = default;

    virtual Judgement judge(Image& frame) = 0;

  protected:
    std::string name_of(std::int32_t index) const {
        const auto place = static_cast<std::size_t>(index);
        return place < categories_.size() ? categories_[place] : "unknown category";
    }

    std::int32_t given_;
    bool takes_category_, gives_category_;

  private:
    std::vector<std::string> categories_;
};

/// Open a bundle's engine with TensorRT. Throws Missing, also in a program built without
/// TensorRT, and BadInput where the bundle has none that runs here.
std::unique_ptr<Engine> open_tensorrt(const Bundle& bundle, const std::string& precision,
                                      const std::string& mode,
                                      std::vector<std::string> categories, std::size_t given);
