// FlashAttention-2's forward pass on the CPU: queries outer, keys inner, a tile of logits at a time, normalised once.
//
// Tensors are read through their strides. q (B, Hq, Lq, D), k (B, Hkv, Lk, D), v (B, Hkv, Lk, Dv), mask and bias expanded to
// (B, Hq, Lq, Lk), sinks (Hq); key j is allowed for query i iff lowest <= j - i <= highest and the mask allows it.

#include <torch/extension.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

namespace {

template <typename T>
struct Rows {  // a tensor of four axes, by its strides
  const T* data = nullptr;
  int64_t stride[4] = {0, 0, 0, 0};
  explicit Rows(const std::optional<torch::Tensor>& x) {
    if (!x) return;
    data = x->const_data_ptr<T>();
    for (int axis = 0; axis < 4; ++axis) stride[axis] = x->stride(axis);
  }
  const T& at(int64_t b, int64_t h, int64_t l, int64_t d) const {
    return data[b * stride[0] + h * stride[1] + l * stride[2] + d * stride[3]];
  }
};

template <typename T, typename Work>
void forward(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const std::optional<torch::Tensor>& mask,
             const std::optional<torch::Tensor>& bias, const std::optional<torch::Tensor>& sinks, int64_t lowest, int64_t highest,
             double softcap, double scale, int64_t block_q, int64_t block_k, torch::Tensor& out) {
  const Rows<T> queries(q), keys(k), values(v), biases(bias);
  const Rows<bool> allowed(mask);
  const int64_t heads = q.size(1), per_group = heads / std::max<int64_t>(k.size(1), 1), lq = q.size(2), lk = k.size(2), width = q.size(3),
                value_width = v.size(3);
  const Work none = -std::numeric_limits<Work>::infinity();
  auto result = out.accessor<T, 4>();
  std::vector<Work> logits(block_k), weighted;
  for (int64_t b = 0; b < q.size(0); ++b)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t first = 0; first < lq; first += block_q) {
        const int64_t rows = std::min(block_q, lq - first), g = h / per_group;
        const Work start = sinks ? static_cast<Work>((*sinks)[h].template item<double>()) : none;
        // A sink is a key with a logit of its own and a value of zeros.
        std::vector<Work> maximum(rows, start), total(rows, start == none ? Work(0) : Work(1));
        weighted.assign(rows * value_width, Work(0));
        const int64_t begin = std::max<int64_t>(0, first + lowest), end = std::min(lk, first + rows + highest);
        for (int64_t tile = begin; tile < end; tile += block_k) {
          const int64_t columns = std::min(block_k, end - tile);
          for (int64_t r = 0; r < rows; ++r) {
            const int64_t i = first + r;
            Work largest = maximum[r];
            for (int64_t c = 0; c < columns; ++c) {
              const int64_t j = tile + c;
              logits[c] = none;
              if (j - i < lowest || j - i > highest || (mask && !allowed.at(b, h, i, j))) continue;
              Work dot = 0;
              for (int64_t d = 0; d < width; ++d) dot += Work(queries.at(b, h, i, d)) * Work(keys.at(b, g, j, d));
              dot *= Work(scale);
              if (softcap > 0) dot = Work(softcap) * std::tanh(dot / Work(softcap));
              if (bias) dot += Work(biases.at(b, h, i, j));
              logits[c] = dot;
              largest = std::max(largest, dot);
            }
            if (largest == none) continue;  // (-inf) - (-inf) would be NaN
            const Work kept = std::exp(maximum[r] - largest);
            Work* row = &weighted[r * value_width];
            total[r] *= kept;
            for (int64_t e = 0; e < value_width; ++e) row[e] *= kept;
            for (int64_t c = 0; c < columns; ++c) {
              if (logits[c] == none) continue;  // what a hidden key holds is not read
              const Work weight = std::exp(logits[c] - largest);
              total[r] += weight;
              for (int64_t e = 0; e < value_width; ++e) row[e] += weight * Work(values.at(b, g, tile + c, e));
            }
            maximum[r] = largest;
          }
        }
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t e = 0; e < value_width; ++e)
            result[b][h][first + r][e] = static_cast<T>(total[r] == 0 ? Work(0) : weighted[r * value_width + e] / total[r]);
      }
}

}  // namespace

torch::Tensor flash(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const std::optional<torch::Tensor>& mask,
                    const std::optional<torch::Tensor>& bias, const std::optional<torch::Tensor>& sinks, int64_t lowest, int64_t highest,
                    double softcap, double scale, int64_t block_q, int64_t block_k) {
  auto out = torch::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, q.scalar_type(), "flash", [&] {
    using Work = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    forward<scalar_t, Work>(q, k, v, mask, bias, sinks, lowest, highest, softcap, scale, block_q, block_k, out);
  });
  return out;
}
