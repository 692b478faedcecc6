#include "torch_math.h"

#include <cmath>
#include <cstdint>
#include <initializer_list>

namespace dq {
namespace {

float fused(float a, float b, float c) { return std::fma(a, b, c); }  // a * b + c, rounded once; exact on every host

}  // namespace

float torch_log(float x) {
  int exponent = 0;
  x = std::frexp(x, &exponent);  // 0.5 <= x < 1
  if (x < 0.707106781186547524F) {
    exponent -= 1;
    x = (x - 1.0F) + x;
  } else {
    x = x - 1.0F;
  }
  const float e = static_cast<float>(exponent), z = x * x;
  float y = 7.0376836292E-2F;
  for (const float p : {-1.1514610310E-1F, 1.1676998740E-1F, -1.2420140846E-1F, 1.4249322787E-1F, -1.6668057665E-1F,
                        2.0000714765E-1F, -2.4999993993E-1F, 3.3333331174E-1F}) {
    y = fused(y, x, p);
  }
  y = fused(y * x, z, e * -2.12194440e-4F);
  y = fused(z, -0.5F, y);
  return fused(e, 0.693359375F, x + y);
}

SinCos torch_sincos(float x) {
  // Octant j, made even; x becomes its distance from j pi / 4.
  const std::int32_t j = (static_cast<std::int32_t>(x * 1.27323954473516F) + 1) & ~1;
  const float y = static_cast<float>(j);
  x = fused(y, -0.78515625F, x);
  x = fused(y, -2.4187564849853515625e-4F, x);
  x = fused(y, -3.77489497744594108e-8F, x);
  const float z = x * x;
  float cosine = fused(fused(2.443315711809948E-005F, z, -1.388731625493765E-003F), z, 4.166664568298827E-002F);
  cosine = fused(cosine * z, z, z * -0.5F) + 1.0F;
  float sine = fused(fused(-1.9515295891E-4F, z, 8.3321608736E-3F), z, -1.6666654611E-1F);
  sine = fused(sine * z, x, x);
  const bool swapped = (j & 2) != 0;
  const float s = swapped ? cosine : sine, c = swapped ? sine : cosine;
  return {(j & 4) != 0 ? -s : s, ((j - 2) & 4) == 0 ? -c : c};
}

}  // namespace dq
