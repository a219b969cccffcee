// What PyTorch calls: tensors to pointers, and one launch.

#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/extension.h>

#include <optional>

#include "flash_kernel.cuh"

namespace {

template <typename T>
void run(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const std::optional<torch::Tensor>& mask,
         const std::optional<torch::Tensor>& bias, const std::optional<torch::Tensor>& sinks, int64_t lowest, int64_t highest,
         double softcap, double scale, torch::Tensor& out) {
  attest::Call<T> call{};
  call.q = static_cast<const T*>(q.const_data_ptr());
  call.k = static_cast<const T*>(k.const_data_ptr());
  call.v = static_cast<const T*>(v.const_data_ptr());
  call.bias = bias ? static_cast<const T*>(bias->const_data_ptr()) : nullptr;
  call.mask = mask ? mask->const_data_ptr<bool>() : nullptr;
  call.sinks = sinks ? sinks->const_data_ptr<float>() : nullptr;
  call.out = static_cast<T*>(out.mutable_data_ptr());
  call.heads = q.size(1), call.groups = k.size(1), call.queries = q.size(2), call.keys = k.size(2);
  call.width = q.size(3), call.value_width = v.size(3), call.lowest = lowest, call.highest = highest;
  call.softcap = static_cast<float>(softcap), call.scale = static_cast<float>(scale);
  C10_CUDA_CHECK(attest::launch<T>(call, q.size(0), at::cuda::getCurrentCUDAStream()));
}

}  // namespace

torch::Tensor flash(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const std::optional<torch::Tensor>& mask,
                    const std::optional<torch::Tensor>& bias, const std::optional<torch::Tensor>& sinks, int64_t lowest, int64_t highest,
                    double softcap, double scale) {
  TORCH_CHECK(q.size(3) <= attest::LARGEST_WIDTH && v.size(3) <= attest::LARGEST_WIDTH, "widths up to ", attest::LARGEST_WIDTH);
  const c10::cuda::CUDAGuard guard(q.device());
  auto out = torch::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.options());
  if (out.numel() == 0) return out;
  if (q.scalar_type() == at::kFloat) run<float>(q, k, v, mask, bias, sinks, lowest, highest, softcap, scale, out);
  else if (q.scalar_type() == at::kHalf) run<__half>(q, k, v, mask, bias, sinks, lowest, highest, softcap, scale, out);
  else if (q.scalar_type() == at::kBFloat16) run<__nv_bfloat16>(q, k, v, mask, bias, sinks, lowest, highest, softcap, scale, out);
  else TORCH_CHECK(false, "no kernel for ", q.scalar_type());
  return out;
}
