// The engine that `hvq-edge build` made, run by TensorRT 10 itself. No GPU has run this: docs/how-to/cpp.md.
#include "engine.hpp"

#ifndef HVQ_TENSORRT

std::unique_ptr<Engine> open_tensorrt(const Bundle&, const std::string&, const std::string&,
                                      std::vector<std::string>, std::size_t) {
    throw Missing("this program was built without TensorRT: cmake -DHVQ_TENSORRT=ON");
}

#else

#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <regex>

namespace {

using nlohmann::json;
using nvinfer1::DataType;
using nvinfer1::Dims;

void check(cudaError_t found, const char* what) {
    if (found != cudaSuccess)
        throw Missing(std::string("CUDA cannot ") + what + ": " + cudaGetErrorString(found));
}

/// What a plan is to run with.
struct Here {
    std::string version, capability, platform;
};

Here look_around() {
    int major = 0, minor = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "find a GPU");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "find a GPU");
    utsname system;
    uname(&system);
    std::string platform = std::string(system.sysname) + "-" + system.machine;
    for (char& letter : platform) letter = static_cast<char>(std::tolower(letter & 0xff));
    const int version = getInferLibVersion();
    return {std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "."
                + std::to_string(version % 100),
            std::to_string(major) + "." + std::to_string(minor), platform};
}

/// The first three numbers of a version: the library's own check knows builds.
std::vector<int> numbers_of(const std::string& version) {
    std::vector<int> numbers;
    const std::regex number("[0-9]+");
    for (std::sregex_iterator one(version.begin(), version.end(), number), end; one != end; ++one)
        if (numbers.size() < 3) numbers.push_back(std::stoi(one->str()));
    return numbers;
}

/// Each field of a plan's record that keeps it from running here; the rules are those of
/// hvq_edge/runtime/tensorrt/engine_file.py.
std::string differences(const json& record, const Here& here, const std::string& graph) {
    const json& options = record.at("options");
    const std::vector<std::string> capabilities = record.at("compute_capabilities");
    const auto built = numbers_of(record.at("backend_version")), found = numbers_of(here.version);
    const bool newer = options.at("version_compatible") == true && found >= built;
    const bool listed =
        std::find(capabilities.begin(), capabilities.end(), here.capability) != capabilities.end();
    const bool ampere = options.at("hardware") == "ampere+"
        && numbers_of(here.capability) >= std::vector<int>{8, 0};
    std::string said;
    const auto differs = [&](const char* field, const std::string& one, const std::string& other) {
        said += std::string(said.empty() ? "" : "; ") + field + ": built for " + one + ", here is "
            + other;
    };
    if (record.at("onnx_sha256") != graph)
        differs("graph", std::string(record.at("onnx_sha256")).substr(0, 12), graph.substr(0, 12));
    if (record.at("backend") != "tensorrt") differs("backend", record.at("backend"), "tensorrt");
    if (built != found && !newer)
        differs("backend_version", record.at("backend_version"), here.version);
    if (record.at("platform") != here.platform)
        differs("platform", record.at("platform"), here.platform);
    if (!listed && !ampere) {
        std::string all;
        for (const std::string& one : capabilities) all += (all.empty() ? "" : ", ") + one;
        differs("compute_capability", all, here.capability);
    }
    return said;
}

struct Plan {
    std::string content;
    json options;
};

/// The newest plan of a precision that runs here, as it was hashed. Throws BadInput.
Plan find_plan(const Bundle& bundle, const std::string& precision, const Here& here) {
    namespace fs = std::filesystem;
    const std::string graph = bundle.graph_sha256(precision);
    const std::regex own("tensorrt-[0-9].*-sm[0-9]+(-sm[0-9]+)*-" + precision + "\\.plan");
    std::vector<fs::path> plans;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(bundle.folder() + "/engines", none))
        if (std::regex_match(entry.path().filename().string(), own)) plans.push_back(entry.path());
    std::sort(plans.begin(), plans.end(), [](const fs::path& one, const fs::path& other) {
        return fs::last_write_time(one) > fs::last_write_time(other);
    });
    std::string reasons;
    for (const fs::path& path : plans) {
        std::string fault;
        try {
            const fs::path beside = fs::path(path).replace_extension(".json");
            const std::string said = read_file(beside);
            const json record = json::parse(said);
            const std::string hash = record.at("plan_sha256");
            Plan plan{read_file(path), record.at("options")};
            if (record.at("format") != "hvq-edge-engine/1")
                fault = "its record is of another format";
            else if (sha256_of(plan.content) != hash)
                fault = "it is not the engine that was built (SHA-256)";
            else if (bundle.is_signed()
                     && (!bundle.names("engines/" + path.filename().string(), hash)
                         || !bundle.names("engines/" + beside.filename().string(), sha256_of(said))))
                fault = "it is not an engine that was signed";
            else
                fault = differences(record, here, graph);
            if (fault.empty()) return plan;
        } catch (const std::exception& error) {
            fault = error.what();
        }
        reasons += (reasons.empty() ? ": " : "; ") + path.filename().string() + ": " + fault;
    }
    throw BadInput("the bundle " + bundle.folder() + " has no " + precision + " engine for tensorrt "
                   + here.version + " on compute capability " + here.capability + reasons
                   + ". Run hvq-edge build on this device");
}

/// Keeps the first error, for a message.
class Log : public nvinfer1::ILogger {
  public:
    void log(Severity severity, const char* text) noexcept override {
        if (severity <= Severity::kERROR && first.empty()) first = text;
    }

    std::string first;
};

struct Freed {
    void operator()(void* memory) const { cudaFree(memory); }
    void operator()(CUstream_st* stream) const { cudaStreamDestroy(stream); }
};

/// An input or output of one image, on the GPU and here.
struct Tensor {
    bool input;
    Dims shape;
    std::vector<char> here;
    std::unique_ptr<void, Freed> there;
};

class TensorRtEngine : public Engine {
  public:
    TensorRtEngine(const Bundle& bundle, const std::string& precision, const std::string& mode,
                   std::vector<std::string> categories, std::size_t given)
        : Engine(mode, std::move(categories), given) {
        const Plan plan = find_plan(bundle, precision, look_around());
        runtime_.reset(nvinfer1::createInferRuntime(log_));
        if (!runtime_) throw Missing("TensorRT does not start: " + log_.first);
        // Such a plan brings its own small runtime.
        if (plan.options.at("version_compatible") == true) runtime_->setEngineHostCodeAllowed(true);
        if (!plan.options.at("dla_core").is_null()) runtime_->setDLACore(plan.options.at("dla_core"));
        engine_.reset(runtime_->deserializeCudaEngine(plan.content.data(), plan.content.size()));
        if (!engine_) throw BadInput("TensorRT cannot load the engine: " + log_.first);
        context_.reset(engine_->createExecutionContext());
        if (!context_) throw Missing("the GPU has too little memory left: " + log_.first);
        cudaStream_t stream = nullptr;
        check(cudaStreamCreate(&stream), "make a stream");
        stream_.reset(stream);
        lay_out(Dims{4, {1, bundle.frame_height(), bundle.frame_width(), 3}});
    }

    Judgement judge(Image& frame) override {
        Tensor& frames = tensors_.at("frames");
        std::copy(frame.levels.begin(), frame.levels.end(), frames.here.begin());
        if (takes_category_) std::memcpy(tensors_.at("category").here.data(), &given_, sizeof given_);
        for (auto& [name, one] : tensors_)
            if (one.input)
                check(cudaMemcpyAsync(one.there.get(), one.here.data(), one.here.size(),
                                      cudaMemcpyHostToDevice, stream_.get()), "copy a frame");
        if (!context_->enqueueV3(stream_.get()))
            throw Missing("TensorRT cannot run the engine: " + log_.first);
        for (auto& [name, one] : tensors_)
            if (!one.input)
                check(cudaMemcpyAsync(one.here.data(), one.there.get(), one.here.size(),
                                      cudaMemcpyDeviceToHost, stream_.get()), "copy a result");
        check(cudaStreamSynchronize(stream_.get()), "run the engine");
        const Tensor& map = tensors_.at("map");
        Judgement judgement{name_of(given_), first_of<float>("score"),
                            std::numeric_limits<double>::infinity(),
                            std::vector<float>(map.here.size() / sizeof(float)),
                            static_cast<int>(map.shape.d[1]), static_cast<int>(map.shape.d[2])};
        std::memcpy(judgement.map.data(), map.here.data(), map.here.size());
        if (gives_category_) {
            judgement.category = name_of(first_of<std::int32_t>("category"));
            judgement.margin = first_of<float>("margin");
        }
        return judgement;
    }

  private:
    /// Give every input and output its place, after seeing that they are those of the contract.
    void lay_out(const Dims& frames) {
        std::map<std::string, DataType> expected{
            {"frames", DataType::kUINT8}, {"score", DataType::kFLOAT}, {"map", DataType::kFLOAT},
            {"codes", DataType::kINT32}};
        if (takes_category_ || gives_category_) expected["category"] = DataType::kINT32;
        if (gives_category_) expected["margin"] = DataType::kFLOAT;
        std::vector<std::string> names;
        for (int i = 0; i < engine_->getNbIOTensors(); ++i) {
            names.push_back(engine_->getIOTensorName(i));
            const auto known = expected.find(names.back());
            if (known == expected.end() || engine_->getTensorDataType(known->first.c_str()) != known->second)
                throw BadInput("the engine has a tensor '" + names.back() + "' of another graph");
        }
        if (names.size() != expected.size()) throw BadInput("the engine is of another graph");
        const Dims one{1, {1}};
        if (!context_->setInputShape("frames", frames)
            || (takes_category_ && !context_->setInputShape("category", one)))
            throw BadInput("the engine does not take one frame at a time: " + log_.first);
        for (const std::string& name : names) {
            const Dims shape = context_->getTensorShape(name.c_str());
            std::size_t bytes = expected.at(name) == DataType::kUINT8 ? 1 : 4;
            for (int i = 0; i < shape.nbDims; ++i) bytes *= static_cast<std::size_t>(shape.d[i]);
            if (name == "map" && shape.nbDims != 3) throw BadInput("the engine's map is no map");
            void* memory = nullptr;
            check(cudaMalloc(&memory, bytes), "find memory");
            const bool input =
                engine_->getTensorIOMode(name.c_str()) == nvinfer1::TensorIOMode::kINPUT;
            tensors_.emplace(name, Tensor{input, shape, std::vector<char>(bytes),
                                          std::unique_ptr<void, Freed>(memory)});
            if (!context_->setTensorAddress(name.c_str(), memory))
                throw BadInput("the engine's " + name + " has no place: " + log_.first);
        }
    }

    template <typename Value> Value first_of(const char* name) const {
        Value value;
        std::memcpy(&value, tensors_.at(name).here.data(), sizeof value);
        return value;
    }

    Log log_;  // freed last: all below write to it
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::map<std::string, Tensor> tensors_;
    std::unique_ptr<CUstream_st, Freed> stream_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
};

}  // namespace

std::unique_ptr<Engine> open_tensorrt(const Bundle& bundle, const std::string& precision,
                                      const std::string& mode,
                                      std::vector<std::string> categories, std::size_t given) {
    return std::make_unique<TensorRtEngine>(bundle, precision, mode, std::move(categories), given);
}

#endif
