// Kernels are written as phases: EACH_THREAD { ... } is what every thread of a block does between two barriers, and what a
// thread keeps over a barrier lies in shared memory. On the device a phase runs in parallel; on the CPU it may be a loop
// over the threads. So both run these very lines.
#pragma once

#include "elements.cuh"

struct Block {
  int x, y, z;      // which block of the grid
  int threads;      // in each block, along x
  int first, step;  // the threads that this call stands for
};

#define EACH_THREAD for (int thread = block.first; thread < block.threads; thread += block.step)

#ifdef __CUDACC__  // a host build defines BARRIER and KERNEL itself
#define BARRIER() __syncthreads()
#define KERNEL(name) \
  extern "C" __global__ void __launch_bounds__(256) name(const Job job) {                             \
    extern __shared__ float shared[];                                                                 \
    const Block block = {static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y),                  \
                         static_cast<int>(blockIdx.z), static_cast<int>(blockDim.x),                  \
                         static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};                \
    name##_block(job, block, shared);                                                                 \
  }
#endif
