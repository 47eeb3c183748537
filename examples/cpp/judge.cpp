// Judges images with a bundle, without Python, one line of JSON an image: docs/how-to/cpp.md.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>

#include "engine.hpp"
#include "regions.hpp"
#include "usable.hpp"

using Line = nlohmann::ordered_json;

namespace {

constexpr const char* usage =
    "usage: hvq_judge [--precision fp32|int8] [--category NAME] [--require-signature PUBKEY]\n"
    "                 [--tensorrt | --plan] [--frame OUT.ppm] BUNDLE IMAGE...\n"
    "\n"
    "Judges images (PNG, PPM, PGM) with a bundle of hvq-edge, one line of JSON an image.\n"
    "\n"
    "  --precision NAME            which graph of the bundle (default: fp32)\n"
    "  --category NAME             what the images show, where the bundle must be told\n"
    "  --require-signature PUBKEY  insist that a key of this file (PEM) signed the bundle\n"
    "  --tensorrt                  run on the TensorRT provider of an ONNX Runtime that has it\n"
    "  --plan                      run the engine that hvq-edge build made, with TensorRT itself\n"
    "  --frame OUT.ppm             write what the graph sees of the last image\n";

class GraphEngine : public Engine {
  public:
    GraphEngine(const std::string& graph, const std::string& mode,
                std::vector<std::string> categories, std::size_t given, bool tensorrt)
        : Engine(mode, std::move(categories), given) {
        Ort::SessionOptions options;
        if (tensorrt) {
            OrtTensorRTProviderOptionsV2* settings = nullptr;
            Ort::ThrowOnError(Ort::GetApi().CreateTensorRTProviderOptions(&settings));
            const std::unique_ptr<OrtTensorRTProviderOptionsV2, void (*)(OrtTensorRTProviderOptionsV2*)>
                held(settings, [](auto* one) { Ort::GetApi().ReleaseTensorRTProviderOptions(one); });
            options.AppendExecutionProvider_TensorRT_V2(*settings);
        }
        session_ = Ort::Session(env_, graph.data(), graph.size(), options);
    }

    Judgement judge(Image& frame) override {
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        const std::int64_t shape[] = {1, frame.height, frame.width, 3}, one[] = {1};
        std::vector<Ort::Value> feed;
        feed.push_back(Ort::Value::CreateTensor<std::uint8_t>(
            memory, frame.levels.data(), frame.levels.size(), shape, 4));
        if (takes_category_)
            feed.push_back(Ort::Value::CreateTensor<std::int32_t>(memory, &given_, 1, one, 1));
        const char* const inputs[] = {"frames", "category"};
        const char* const outputs[] = {"score", "map", "category", "margin"};
        const std::vector<Ort::Value> results = session_.Run(
            Ort::RunOptions{nullptr}, inputs, feed.data(), feed.size(), outputs,
            gives_category_ ? 4 : 2);
        Judgement judgement{name_of(given_), *results[0].GetTensorData<float>(),
                            std::numeric_limits<double>::infinity(), {}, 0, 0};
        const auto cells = results[1].GetTensorTypeAndShapeInfo();
        const float* map = results[1].GetTensorData<float>();
        judgement.map.assign(map, map + cells.GetElementCount());
        judgement.rows = static_cast<int>(cells.GetShape().at(1));
        judgement.columns = static_cast<int>(cells.GetShape().at(2));
        if (gives_category_) {
            judgement.category = name_of(*results[2].GetTensorData<std::int32_t>());
            judgement.margin = *results[3].GetTensorData<float>();
        }
        return judgement;
    }

  private:
    Ort::Env env_{ORT_LOGGING_LEVEL_ERROR};
    Ort::Session session_{nullptr};
};

std::string text_of(const char* format, double first, double second) {
    char text[120];
    std::snprintf(text, sizeof text, format, first, second);
    return text;
}

/// Why an image leads to no decision whatever the threshold; empty: a threshold decides.
std::string refusal(const Judgement& judgement) {
    if (!std::isfinite(judgement.score)) return "the score is not a finite number";
    for (const float value : judgement.map)
        if (!std::isfinite(value)) return "the anomaly map is not finite";
    if (!(judgement.margin >= 0))
        return text_of("unknown part: unlike every category (margin %.3g)", judgement.margin, 0);
    return "";
}

class Judge {
  public:
    Judge(const std::string& folder, const std::string& precision, const std::string& category,
          const std::string& trusted, bool tensorrt, bool plan)
        : bundle_(folder, trusted), precision_(precision), frame_(0, 0, 3) {
        const auto& manifest = bundle_.manifest();
        const std::vector<std::string> categories = manifest.at("categories");
        const auto found = std::find(categories.begin(), categories.end(), category);
        const std::string mode = manifest.at("category_mode");
        const bool asks = mode == "input";
        if (!asks && mode != "auto" && mode != "one")
            throw BadInput("this program does not know the category mode '" + mode + "'");
        if (asks && category.empty()) throw BadInput("this bundle must be told: --category NAME");
        if (mode == "auto" && !category.empty())
            throw BadInput("this bundle chooses the category itself: leave --category out");
        if (!category.empty() && found == categories.end())
            throw BadInput("the bundle has no category '" + category + "'");
        const std::size_t given = asks ? found - categories.begin() : 0;
        if (plan)
            engine_ = open_tensorrt(bundle_, precision, mode, categories, given);
        else
            engine_ = std::make_unique<GraphEngine>(bundle_.graph(precision), mode, categories,
                                                    given, tensorrt);
    }

    Line judge(const std::string& path) {
        const Image image = read_image(path);
        frame_ = fit_image(image, bundle_.frame_height(), bundle_.frame_width());
        Line result{{"image", path},        {"verdict", "no_decision"}, {"score", nullptr},
                    {"category", nullptr},  {"p_value", nullptr},       {"reason", ""},
                    {"regions", Line::array()}, {"threshold", nullptr}, {"precision", precision_}};
        const auto& manifest = bundle_.manifest();
        const auto limits = manifest.value("image_limits", nlohmann::json());
        const Image grey = grey_of(frame_);
        const Quality quality = measure(grey);
        std::string refused = limits.is_null() ? "" : fault(quality, limits);
        if (refused.empty()) {
            const Judgement judgement = engine_->judge(frame_);
            result["category"] = judgement.category;
            refused = category_fault(judgement.category, grey, quality);
            if (refused.empty()) refused = refusal(judgement);
            if (refused.empty()) return decided(result, judgement, image);
            if (const Threshold* known = bundle_.threshold(precision_, judgement.category))
                result["threshold"] = known->value;
        }
        result["reason"] = refused;
        return result;
    }

    const Image& frame() const { return frame_; }

  private:
    std::string category_fault(const std::string& category, const Image& grey,
                               const Quality& quality) {
        const auto all = bundle_.manifest().value("category_limits", nlohmann::json::object());
        if (!all.contains(category)) return "";
        const auto& limits = all.at(category);
        const std::string found = fault(quality, limits.at("image"));
        const auto placement = limits.value("placement", nlohmann::json());
        return !found.empty() || placement.is_null() ? found : moved(grey, placement);
    }

    Line decided(Line result, const Judgement& judgement, const Image& image) {
        const double score = judgement.score;
        result["score"] = score;
        const Threshold* threshold = bundle_.threshold(precision_, judgement.category);
        if (!threshold) {
            result["reason"] = "no threshold for " + judgement.category + " at " + precision_;
            return result;
        }
        const double limit = threshold->value;
        const bool rejected = score > limit;
        result["threshold"] = limit;
        result["p_value"] = threshold->p_value(score);
        result["verdict"] = rejected ? "reject" : "pass";
        result["reason"] = text_of(rejected ? "score %.6g above threshold %.6g"
                                            : "score %.6g within threshold %.6g", score, limit);
        for (const Region& region : find_regions(judgement.map, judgement.rows, judgement.columns,
                                                 score, limit, image.height, image.width))
            result["regions"].push_back(
                {{"box", region.box}, {"area", region.area}, {"peak", region.peak}});
        return result;
    }

    Bundle bundle_;
    std::string precision_;
    Image frame_;
    std::unique_ptr<Engine> engine_;
};

int run(int count, char** words) {
    std::string precision = "fp32", category, trusted, frame;
    bool tensorrt = false, plan = false;
    std::vector<std::string> names;
    for (int i = 1; i < count; ++i) {
        const std::string word = words[i];
        std::string* value = word == "--precision" ? &precision
            : word == "--category" ? &category
            : word == "--require-signature" ? &trusted
            : word == "--frame" ? &frame : nullptr;
        if (value && i + 1 < count) *value = words[++i];
        else if (word == "--tensorrt") tensorrt = true;
        else if (word == "--plan") plan = true;
        else if (word == "--help") return std::cout << usage, 0;
        else if (word.compare(0, 2, "--") == 0) return std::cerr << usage, 2;
        else names.push_back(word);
    }
    if (names.size() < 2) return std::cerr << usage, 2;
    Judge judge(names[0], precision, category, trusted, tensorrt, plan);
    for (std::size_t i = 1; i < names.size(); ++i)
        std::cout << judge.judge(names[i]).dump(-1, ' ', false, Line::error_handler_t::replace)
                  << std::endl;
    if (!frame.empty()) {
        const Image& seen = judge.frame();
        std::ofstream file(frame, std::ios::binary);
        file << "P6\n" << seen.width << ' ' << seen.height << "\n255\n";
        file.write(reinterpret_cast<const char*>(seen.levels.data()),
                   static_cast<std::streamsize>(seen.levels.size()));
        if (!file.flush()) throw BadInput(frame + " cannot be written");
    }
    return 0;
}

}  // namespace

int main(int count, char** words) {
    try {
        return run(count, words);
    } catch (const Ort::Exception& error) {
        std::cerr << "Error: ONNX Runtime: " << error.what() << "\n";
        return 3;
    } catch (const Missing& error) {
        std::cerr << "Error: " << error.what() << ".\n";
        return 3;
    } catch (const BadInput& error) {
        std::cerr << "Error: " << error.what() << ".\n";
    } catch (const std::exception& error) {
        std::cerr << "Error: the bundle is not as docs/reference/bundle-format.md says: " << error.what()
                  << ".\n";
    }
    return 2;
}
