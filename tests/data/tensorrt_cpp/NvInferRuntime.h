// The part of TensorRT 10's C++ runtime that examples/cpp uses, for engines whose plan is an ONNX
// file: ONNX Runtime computes. Names, types and `noexcept` are those of NVIDIA's header.
//
// HVQ_STAND_IN_FAILS is what goes wrong: deserialise, context, shape or execute.
// HVQ_STAND_IN_VERSION is the library's, such as 100300; HVQ_STAND_IN_CALLS a file that gets what
// the runtime was told.
#pragma once

#include <cuda_runtime_api.h>
#include <onnxruntime_cxx_api.h>

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace nvinfer1 {

using AsciiChar = char;

enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kUINT8 = 5 };
enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };

struct Dims64 {
    static constexpr std::int32_t MAX_DIMS = 8;
    std::int32_t nbDims;
    std::int64_t d[MAX_DIMS];
};
using Dims = Dims64;

class ILogger {
  public:
    enum class Severity : std::int32_t {
        kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4
    };
    virtual ~ILogger() = default;
    virtual void log(Severity severity, AsciiChar const* text) noexcept = 0;
};

}  // namespace nvinfer1

namespace stand_in {

struct Port {
    bool input;
    nvinfer1::DataType type;
    nvinfer1::Dims shape;  // -1: the batch
};

struct Graph {
    Ort::Env env{ORT_LOGGING_LEVEL_ERROR};
    Ort::Session session{nullptr};
    std::vector<std::string> names;
    std::map<std::string, Port> ports;
    nvinfer1::ILogger* logger;

    void take(bool input, const char* name, const Ort::TypeInfo& found) {
        const auto info = found.GetTensorTypeAndShapeInfo();
        const auto sizes = info.GetShape();
        nvinfer1::Dims shape{static_cast<std::int32_t>(sizes.size()), {}};
        for (std::size_t i = 0; i < sizes.size(); ++i) shape.d[i] = sizes[i];
        const auto type = info.GetElementType();
        ports[name] = {input, type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ? nvinfer1::DataType::kFLOAT
            : type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 ? nvinfer1::DataType::kUINT8
            : nvinfer1::DataType::kINT32, shape};
        names.push_back(name);
    }

    bool refused(const char* step, const char* text) {
        if (said("HVQ_STAND_IN_FAILS") != step) return false;
        logger->log(nvinfer1::ILogger::Severity::kWARNING, "no fault yet");
        logger->log(nvinfer1::ILogger::Severity::kERROR, text);
        return true;
    }
};

inline void note(const std::string& call) {
    const std::string file = said("HVQ_STAND_IN_CALLS");
    if (!file.empty()) std::ofstream(file, std::ios::app) << call << "\n";
}

template <typename Value>
Ort::Value view(void* memory, const nvinfer1::Dims& shape) {
    std::size_t count = 1;
    for (int i = 0; i < shape.nbDims; ++i) count *= static_cast<std::size_t>(shape.d[i]);
    return Ort::Value::CreateTensor<Value>(
        Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault),
        static_cast<Value*>(other_side(memory)), count, shape.d, shape.nbDims);
}

}  // namespace stand_in

namespace nvinfer1 {

class IExecutionContext {
  public:
    explicit IExecutionContext(stand_in::Graph& graph) : graph_(graph) {}
    virtual ~IExecutionContext() noexcept = default;

    bool setInputShape(char const* tensorName, Dims const& dims) noexcept {
        if (graph_.refused("shape", "batch 1 is below the profile's least")) return false;
        const Dims& known = graph_.ports.at(tensorName).shape;
        if (dims.nbDims != known.nbDims) return false;
        for (int i = 1; i < dims.nbDims; ++i)
            if (dims.d[i] != known.d[i]) return false;
        batch_ = dims.d[0];
        return true;
    }
    Dims getTensorShape(char const* tensorName) const noexcept {
        Dims shape = graph_.ports.at(tensorName).shape;
        shape.d[0] = batch_;
        return shape;
    }
    bool setTensorAddress(char const* tensorName, void* data) noexcept {
        addresses_[tensorName] = data;
        return true;
    }
    bool enqueueV3(cudaStream_t) noexcept {
        if (graph_.refused("execute", "an illegal memory access was encountered")) return false;
        std::vector<const char*> names[2];
        std::vector<Ort::Value> values[2];
        for (const std::string& name : graph_.names) {
            const stand_in::Port& port = graph_.ports.at(name);
            void* memory = addresses_.at(name);
            const Dims shape = getTensorShape(name.c_str());
            names[port.input].push_back(name.c_str());
            values[port.input].push_back(
                port.type == DataType::kFLOAT ? stand_in::view<float>(memory, shape)
                : port.type == DataType::kUINT8 ? stand_in::view<std::uint8_t>(memory, shape)
                : stand_in::view<std::int32_t>(memory, shape));
        }
        graph_.session.Run(Ort::RunOptions{nullptr}, names[1].data(), values[1].data(),
                           values[1].size(), names[0].data(), values[0].data(), values[0].size());
        return true;
    }

  private:
    stand_in::Graph& graph_;
    std::int64_t batch_ = -1;
    std::map<std::string, void*> addresses_;
};

class ICudaEngine {
  public:
    explicit ICudaEngine(std::unique_ptr<stand_in::Graph> graph) : graph_(std::move(graph)) {}
    virtual ~ICudaEngine() noexcept = default;

    std::int32_t getNbIOTensors() const noexcept {
        return static_cast<std::int32_t>(graph_->names.size());
    }
    char const* getIOTensorName(std::int32_t index) const noexcept {
        return graph_->names[static_cast<std::size_t>(index)].c_str();
    }
    TensorIOMode getTensorIOMode(char const* tensorName) const noexcept {
        return graph_->ports.at(tensorName).input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }
    DataType getTensorDataType(char const* tensorName) const noexcept {
        return graph_->ports.at(tensorName).type;
    }
    IExecutionContext* createExecutionContext() noexcept {
        if (graph_->refused("context", "out of memory")) return nullptr;
        return new IExecutionContext(*graph_);
    }

  private:
    std::unique_ptr<stand_in::Graph> graph_;
};

class IRuntime {
  public:
    explicit IRuntime(ILogger& logger) : logger_(logger) {}
    virtual ~IRuntime() noexcept = default;

    void setEngineHostCodeAllowed(bool allowed) noexcept {
        stand_in::note(allowed ? "host code allowed" : "host code refused");
    }
    void setDLACore(std::int32_t dlaCore) noexcept {
        stand_in::note("DLA core " + std::to_string(dlaCore));
    }
    ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept {
        auto graph = std::make_unique<stand_in::Graph>();
        graph->logger = &logger_;
        if (graph->refused("deserialise", "Serialization assertion failed")) return nullptr;
        graph->session = Ort::Session(graph->env, blob, size, Ort::SessionOptions{});
        Ort::AllocatorWithDefaultOptions memory;
        Ort::Session& session = graph->session;
        for (std::size_t i = 0; i < session.GetInputCount(); ++i)
            graph->take(true, session.GetInputNameAllocated(i, memory).get(),
                        session.GetInputTypeInfo(i));
        for (std::size_t i = 0; i < session.GetOutputCount(); ++i)
            graph->take(false, session.GetOutputNameAllocated(i, memory).get(),
                        session.GetOutputTypeInfo(i));
        return new ICudaEngine(std::move(graph));
    }

  private:
    ILogger& logger_;
};

inline IRuntime* createInferRuntime(ILogger& logger) noexcept { return new IRuntime(logger); }

}  // namespace nvinfer1

inline std::int32_t getInferLibVersion() noexcept {
    return std::stoi(stand_in::said("HVQ_STAND_IN_VERSION"));
}
