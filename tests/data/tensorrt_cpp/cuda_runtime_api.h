// The few calls of CUDA's runtime that examples/cpp makes, on a GPU that is main memory.
//
// A pointer to its memory cannot be read by the program itself: a copy that was forgotten ends it.
// HVQ_STAND_IN_CAPABILITY is the GPU's, such as 89; empty: there is no driver.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

enum cudaError_t { cudaSuccess = 0, cudaErrorInsufficientDriver = 35 };
enum cudaDeviceAttr {
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
struct CUstream_st {};
using cudaStream_t = CUstream_st*;

namespace stand_in {

inline std::string said(const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
}

/// From an address of the GPU to one that can be read, and back.
inline void* other_side(const void* memory) {
    return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(memory) ^ (std::uintptr_t{1} << 62));
}

}  // namespace stand_in

inline const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaSuccess ? "no error" : "CUDA driver version is insufficient";
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr asked, int) {
    const std::string capability = stand_in::said("HVQ_STAND_IN_CAPABILITY");
    if (capability.empty()) return cudaErrorInsufficientDriver;
    *value = std::stoi(capability) / (asked == cudaDevAttrComputeCapabilityMajor ? 10 : 1) % 10;
    return cudaSuccess;
}

inline cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
    *memory = stand_in::other_side(std::calloc(bytes, 1));
    return cudaSuccess;
}

inline cudaError_t cudaFree(void* memory) {
    if (memory) std::free(stand_in::other_side(memory));
    return cudaSuccess;
}

inline cudaError_t cudaStreamCreate(cudaStream_t* stream) {
    *stream = new CUstream_st;
    return cudaSuccess;
}

inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    delete stream;
    return cudaSuccess;
}

inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes,
                                   cudaMemcpyKind kind, cudaStream_t) {
    if (kind == cudaMemcpyHostToDevice) to = stand_in::other_side(to);
    else from = stand_in::other_side(from);
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
