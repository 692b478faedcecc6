#pragma once

namespace dq {

struct SinCos {
  float sin, cos;
};

/// What torch's AVX2 kernels compute for 8 numbers at a time, for one: the single precision functions of the Cephes library by
/// Stephen L. Moshier, vectorized by Julien Pommier and Giovanni Garberoglio (avx_mathfun.h, zlib license), here in plain C++ and
/// changed: with a fused multiply-add where torch's compiler makes one.

/// Natural logarithm, for x from 2^-24 to 1.
float torch_log(float x);

/// For x from 0 to 2 pi.
SinCos torch_sincos(float x);

}  // namespace dq
