// FlashAttention-2's forward pass in plain CUDA: a block of threads for each tile of queries of one head, a warp for each query.
//
// All warps of a block share the tile of keys and values that is in shared memory, so that each is read from global memory once for
// WARPS queries. The lanes of a warp share the widths: a logit is a sum over lanes, and each lane keeps its part of the output.
// Arrays are contiguous: q (B, Hq, Lq, D), k (B, Hkv, Lk, D), v (B, Hkv, Lk, Dv), mask and bias (B, Hq, Lq, Lk); any may be null
// of mask, bias and sinks.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math_constants.h>

namespace attest {

constexpr int WARP = 32, WARPS = 4, KEYS = 32, LARGEST_WIDTH = 256, PARTS = LARGEST_WIDTH / WARP;

__device__ inline float number(float x) { return x; }
__device__ inline float number(__half x) { return __half2float(x); }
__device__ inline float number(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename T>
__device__ inline T stored(float x);
template <>
__device__ inline float stored<float>(float x) { return x; }
template <>
__device__ inline __half stored<__half>(float x) { return __float2half_rn(x); }
template <>
__device__ inline __nv_bfloat16 stored<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

__device__ inline float over_lanes(float x) {  // every lane gets the sum
  for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

template <typename T>
struct Call {
  const T *q, *k, *v, *bias;
  const bool* mask;
  const float* sinks;
  T* out;
  long long heads, groups, queries, keys, width, value_width, lowest, highest;
  float softcap, scale;
};

// Shared memory: KEYS rows of keys, then KEYS rows of values, in float.
template <typename T>
__global__ void flash(Call<T> call) {
  extern __shared__ float shared[];
  float* own_keys = shared;
  float* own_values = shared + KEYS * call.width;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const long long head = blockIdx.y, batch = head / call.heads, h = head % call.heads, g = h / (call.heads / call.groups);
  const long long first = static_cast<long long>(blockIdx.x) * WARPS, i = first + warp;
  const bool present = i < call.queries;
  const T* keys = call.k + (batch * call.groups + g) * call.keys * call.width;
  const T* values = call.v + (batch * call.groups + g) * call.keys * call.value_width;
  const long long row = head * call.queries + i;

  float query[PARTS], weighted[PARTS];
  for (int part = 0; part < PARTS; ++part) {
    const long long d = part * WARP + lane;
    query[part] = present && d < call.width ? number(call.q[row * call.width + d]) * call.scale : 0.0f;
    weighted[part] = 0.0f;
  }
  // A sink is a key with a logit of its own and a value of zeros.
  float maximum = call.sinks ? call.sinks[h] : -CUDART_INF_F, total = call.sinks && maximum > -CUDART_INF_F ? 1.0f : 0.0f;

  const long long begin = max(0LL, first + call.lowest), end = min(call.keys, first + WARPS + call.highest);
  for (long long tile = begin; tile < end; tile += KEYS) {
    const long long columns = min(static_cast<long long>(KEYS), end - tile);
    __syncthreads();  // nobody still reads the tile before
    for (long long n = threadIdx.x; n < columns * call.width; n += blockDim.x) own_keys[n] = number(keys[tile * call.width + n]);
    for (long long n = threadIdx.x; n < columns * call.value_width; n += blockDim.x)
      own_values[n] = number(values[tile * call.value_width + n]);
    __syncthreads();
    for (int c = 0; present && c < columns; ++c) {  // the same for all lanes of a warp
      const long long j = tile + c, distance = j - i;
      if (distance < call.lowest || distance > call.highest) continue;
      if (call.mask && !call.mask[row * call.keys + j]) continue;
      float logit = 0.0f;
      for (int part = 0; part < PARTS; ++part) {
        const long long d = part * WARP + lane;
        if (d < call.width) logit += query[part] * own_keys[c * call.width + d];
      }
      logit = over_lanes(logit);
      if (call.softcap > 0.0f) logit = call.softcap * tanhf(logit / call.softcap);
      if (call.bias) logit += number(call.bias[row * call.keys + j]);
      if (logit == -CUDART_INF_F) continue;  // (-inf) - (-inf) would be NaN
      const float largest = fmaxf(maximum, logit), kept = expf(maximum - largest), weight = expf(logit - largest);
      total = total * kept + weight;
      for (int part = 0; part < PARTS; ++part) {
        const long long e = part * WARP + lane;
        if (e < call.value_width) weighted[part] = weighted[part] * kept + weight * own_values[c * call.value_width + e];
      }
      maximum = largest;
    }
  }
  for (int part = 0; present && part < PARTS; ++part) {
    const long long e = part * WARP + lane;
    if (e < call.value_width) call.out[row * call.value_width + e] = stored<T>(total == 0.0f ? 0.0f : weighted[part] / total);
  }
}

template <typename T>
cudaError_t launch(const Call<T>& call, long long batch, cudaStream_t stream) {
  const size_t bytes = static_cast<size_t>(KEYS) * (call.width + call.value_width) * sizeof(float);  // 64 KiB at most
  cudaError_t error = cudaFuncSetAttribute(flash<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error != cudaSuccess) return error;
  const dim3 blocks(static_cast<unsigned>((call.queries + WARPS - 1) / WARPS), static_cast<unsigned>(batch * call.heads));
  flash<T><<<blocks, WARP * WARPS, bytes, stream>>>(call);
  return cudaGetLastError();
}

}  // namespace attest
