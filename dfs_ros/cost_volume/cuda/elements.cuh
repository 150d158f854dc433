// Per-element arithmetic of the cost volumes, and the one struct that every kernel is handed.
//
// The same text is device code under nvcc and NVRTC and plain C++ for g++, so that what runs on a GPU can be held to the
// float64 reference on a machine without one. No header is needed on the device: NVRTC brings none.
#pragma once

#ifdef __CUDACC__
#define ELEMENT __device__ __forceinline__
#else
#include <cmath>
#include <cstring>
#define ELEMENT static inline
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
#endif

enum Epilogue { COST = 0, LOG_ENERGY = 1, BOUND = 2 };

// What a kernel works on: the hypotheses of one block. Arrays are dense, last index fastest. `columns` is
// padded_width / 2 + 1, `quadrant rows` padded_height / 2 + 1, `pairs` (frames * channels + 1) / 2: two real images
// travel through one complex FFT as its real and imaginary part. Mirrored field by field in job.py.
struct Job {
  int frames, channels, image_channels, depths;
  int height, width, padded_height, padded_width;
  int pad_top, pad_left, window_radius, taps;
  int residual, tabulated, mix_channels, epilogue;
  int half_output, far_cells;
  float eps, table_entries_per_unit, bound, log_floor, smoothness, edge_contrast, sigma_scale;
  const unsigned char* images;    // (frames, height, width, image_channels)
  const float* linear;            // (3, 256): intensity of a pixel value over padded_height * padded_width, channel weight in
  float* planes;                  // (frames, channels, padded_height, padded_width)
  const float2* spectra;          // (frames, channels, padded_height, columns)
  const float* diameters;         // (depths, frames) in pixels, negative on the far side of the focus of an aberrated lens
  const float4* radial;           // (entries): cubic of the transfer function in each cell of |c| rho; from far_cells on
                                  // of the far side, 0 if both sides are alike
  const float* disks;             // (entries, taps, taps): quadrants of the tabulated disks, mirrored taps counted in
  const float* row_cosines;       // (padded_height / 2 + 1, taps)
  const float* column_cosines;    // (columns, taps)
  float* quadrants;               // (depths, frames, padded_height / 2 + 1, columns): transfer functions of those
  const float* row_laplacian;     // (padded_height / 2 + 1): 4 sin^2(pi frequency)
  const float* column_laplacian;  // (columns)
  const float* window;            // (window_radius + 1): half of the Gaussian
  const float* mixing;            // (3, 3): the Gaussian across colours
  float* gains;                   // (depths): N(d)
  float2* pairs;                  // (depths, pairs, padded_height, padded_width): spectra, then images
  float* rows;                    // (depths, channels or 1, height, width): windowed along rows
  float* mean;                    // (depths, channels, height, width): windowed mean of the deblurred images
  void* volume;                   // (depths, height, width), float or half
  const float* costs;             // (depths, height, width), for paths (height, width, depths): a volume to work on
  const float* guide;             // (height, width): the image whose edges are kept
  float* guide_mean;              // (height, width): windowed mean of it
  float* guide_scale;             // (height, width): 1 / (its variance + eps)
  const float* levels;            // (depths): inverse depth of the hypotheses
  const float* level_steps;       // (depths): how far apart they are, there
  const float2* shifts;           // (depths, frames): pixels that a frame is moved by, of a camera that moves
  const unsigned char* inside;    // (frames, padded_height, padded_width): pixels that a frame sees, before that
};

template <typename T>
ELEMENT T load(const T* address) {
#ifdef __CUDA_ARCH__
  return __ldg(address);
#else
  return *address;
#endif
}

ELEMENT void store(void* volume, long long index, float value, int half) {
  if (!half) {
    static_cast<float*>(volume)[index] = value;
    return;
  }
  unsigned short bits;
#ifdef __CUDA_ARCH__
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#elif defined(__CUDACC__)
  bits = 0;  // the host half of an nvcc build: never run
#else
  const _Float16 rounded = static_cast<_Float16>(value);
  std::memcpy(&bits, &rounded, sizeof bits);
#endif
  static_cast<unsigned short*>(volume)[index] = bits;
}

// Index reflected into [0, size), the edge repeated, however far outside.
ELEMENT int reflected(int index, int size) {
  const int period = 2 * size;
  index %= period;
  if (index < 0) index += period;
  return index < size ? index : period - 1 - index;
}

ELEMENT int columns_of(const Job& job) { return job.padded_width / 2 + 1; }
ELEMENT int pairs_of(const Job& job) { return (job.frames * job.channels + 1) / 2; }

// One frequency of a half spectrum.
struct Bin {
  int row, column, quadrant_row;
  float frequency;  // cycles per pixel
};

ELEMENT Bin bin_at(const Job& job, int index) {
  Bin bin;
  bin.row = index / columns_of(job);
  bin.column = index - bin.row * columns_of(job);
  bin.quadrant_row = 2 * bin.row <= job.padded_height ? bin.row : job.padded_height - bin.row;
  const float down = static_cast<float>(bin.quadrant_row) / static_cast<float>(job.padded_height);
  const float across = static_cast<float>(bin.column) / static_cast<float>(job.padded_width);
  bin.frequency = sqrtf(down * down + across * across);
  return bin;
}

// Transfer function at a frequency in cycles per pixel; `blur` = depth * frames + frame.
ELEMENT float radial_transfer(const Job& job, int blur, float frequency) {
  const float diameter = load(job.diameters + blur);
  const float position = fabsf(diameter) * frequency * job.table_entries_per_unit;
  const int cell = static_cast<int>(position);
  const float t = position - static_cast<float>(cell);
  const float4 cubic = load(job.radial + (diameter < 0.0f ? job.far_cells : 0) + cell);
  return cubic.x + t * (cubic.y + t * (cubic.z + t * cubic.w));
}

// Transfer function of the blur of image `frame` at hypothesis `depth`: real, for all models are symmetric.
ELEMENT float transfer_at(const Job& job, int depth, int frame, const Bin& bin) {
  const int blur = depth * job.frames + frame;
  if (!job.tabulated) return radial_transfer(job, blur, bin.frequency);
  const long long row = static_cast<long long>(blur) * (job.padded_height / 2 + 1) + bin.quadrant_row;
  return job.quadrants[row * columns_of(job) + bin.column];
}

// exp(-2 pi i turns), or its real part.
ELEMENT float2 turned(float turns, bool real) {
  const float angle = -6.2831853f * (turns - rintf(turns));
  float2 factor;
  factor.x = cosf(angle);
  factor.y = real ? 0.0f : sinf(angle);
  return factor;
}

ELEMENT float2 product(float2 a, float2 b) {
  float2 c;
  c.x = a.x * b.x - a.y * b.y;
  c.y = a.x * b.y + a.y * b.x;
  return c;
}

// Factor on the spectrum that moves image `frame` to its place at hypothesis `depth`; 1 if not MOVED. The highest
// frequency of a real image has no direction: columns 0 and W' / 2 are those of a real image again.
template <bool MOVED>
ELEMENT float2 shift_at(const Job& job, int depth, int frame, const Bin& bin) {
  if (!MOVED) {
    float2 one;
    one.x = 1.0f;
    one.y = 0.0f;
    return one;
  }
  const float2 shift = load(job.shifts + depth * job.frames + frame);
  const bool last_row = 2 * bin.row == job.padded_height, last_column = 2 * bin.column == job.padded_width;
  const int row = 2 * bin.row < job.padded_height ? bin.row : bin.row - job.padded_height;
  const float down = static_cast<float>(row) / static_cast<float>(job.padded_height);
  const float across = static_cast<float>(bin.column) / static_cast<float>(job.padded_width);
  return product(turned(down * shift.y, last_row && (bin.column == 0 || last_column)),
                 turned(across * shift.x, last_column));
}

// Wiener-Hunt deconvolution: k / (k^2 + eps |L|^2).
ELEMENT float wiener_factor(const Job& job, const Bin& bin, float k) {
  const float laplacian = load(job.row_laplacian + bin.quadrant_row) + load(job.column_laplacian + bin.column);
  return k / (k * k + job.eps * laplacian * laplacian);
}

// Writes spectra of real images, two at a time, as the full spectrum of (first + i second).
struct PairWriter {
  float2 *here, *mirrored;  // in the plane of the next pair; mirrored = null where that bin has a thread of its own
  long long plane;
  float2 pending;
  bool waiting;
};

ELEMENT PairWriter pair_writer(const Job& job, int depth, const Bin& bin) {
  PairWriter writer;
  writer.plane = static_cast<long long>(job.padded_height) * job.padded_width;
  float2* first = job.pairs + static_cast<long long>(depth) * pairs_of(job) * writer.plane;
  writer.here = first + static_cast<long long>(bin.row) * job.padded_width + bin.column;
  writer.mirrored = nullptr;
  if (bin.column > 0 && 2 * bin.column < job.padded_width) {
    const int row = bin.row == 0 ? 0 : job.padded_height - bin.row;
    writer.mirrored = first + static_cast<long long>(row) * job.padded_width + (job.padded_width - bin.column);
  }
  writer.pending.x = writer.pending.y = 0.0f;
  writer.waiting = false;
  return writer;
}

ELEMENT void write_pair(PairWriter& writer, float2 a, float2 b) {
  float2 z;
  z.x = a.x - b.y;
  z.y = a.y + b.x;
  *writer.here = z;
  writer.here += writer.plane;
  if (writer.mirrored != nullptr) {
    z.x = a.x + b.y;
    z.y = b.x - a.y;
    *writer.mirrored = z;
    writer.mirrored += writer.plane;
  }
}

ELEMENT void add_image(PairWriter& writer, float2 spectrum) {
  if (writer.waiting) {
    write_pair(writer, writer.pending, spectrum);
  } else {
    writer.pending = spectrum;
  }
  writer.waiting = !writer.waiting;
}

ELEMENT void finish_pairs(PairWriter& writer) {
  float2 nothing;
  nothing.x = nothing.y = 0.0f;
  if (writer.waiting) write_pair(writer, writer.pending, nothing);
}

ELEMENT long long plane_index(const Job& job, int plane, int y, int x) {
  return (static_cast<long long>(plane) * job.height + y) * job.width + x;
}

// One pixel of all images of a hypothesis, after the inverse FFT; images are numbered frame * channels + channel.
struct Pixel {
  const float2* pairs;
  long long plane;
};

ELEMENT Pixel pixel_at(const Job& job, int depth, int y, int x) {
  Pixel pixel;
  pixel.plane = static_cast<long long>(job.padded_height) * job.padded_width;
  pixel.pairs = job.pairs + static_cast<long long>(depth) * pairs_of(job) * pixel.plane +
                static_cast<long long>(y + job.pad_top) * job.padded_width + x + job.pad_left;
  return pixel;
}

ELEMENT float value_of(const Pixel& pixel, int image) {
  const float2 pair = pixel.pairs[(image >> 1) * pixel.plane];
  return image & 1 ? pair.y : pair.x;
}

// Sum of the squares of all images.
ELEMENT float energy_at(const Job& job, int depth, int y, int x) {
  const Pixel pixel = pixel_at(job, depth, y, x);
  float sum = 0.0f;
  for (int i = 0; i < pairs_of(job); ++i) {
    const float2 pair = pixel.pairs[i * pixel.plane];
    sum += pair.x * pair.x + pair.y * pair.y;
  }
  return sum;
}

// Whether image `frame`, moved to its place at a hypothesis, sees a pixel.
ELEMENT bool seen_at(const Job& job, int depth, int frame, int y, int x) {
  const float2 shift = load(job.shifts + depth * job.frames + frame);
  const int from_y = y + static_cast<int>(floorf(static_cast<float>(job.pad_top) - shift.y + 0.5f));
  const int from_x = x + static_cast<int>(floorf(static_cast<float>(job.pad_left) - shift.x + 0.5f));
  if (from_y < 0 || from_y >= job.padded_height || from_x < 0 || from_x >= job.padded_width) return false;
  return job.inside[(static_cast<long long>(frame) * job.padded_height + from_y) * job.padded_width + from_x] != 0;
}

// Of the frames that see a pixel: the sum of squares (channel 0), and what noise would leave of it.
ELEMENT float seen_energy_at(const Job& job, int depth, int channel, int y, int x) {
  const Pixel pixel = pixel_at(job, depth, y, x);
  float sum = channel == 0 ? 0.0f : load(job.gains + depth) - static_cast<float>(job.frames);
  for (int f = 0; f < job.frames; ++f) {
    if (!seen_at(job, depth, f, y, x)) continue;
    if (channel == 1) sum += 1.0f;
    for (int c = 0; channel == 0 && c < job.channels; ++c) {
      const float value = value_of(pixel, f * job.channels + c);
      sum += value * value;
    }
  }
  return channel == 0 ? sum : fmaxf(sum, 0.05f);  // _LEAST_SEEN of ../moving.py
}

ELEMENT float mean_at(const Job& job, int depth, int channel, int y, int x) {
  const Pixel pixel = pixel_at(job, depth, y, x);
  float sum = 0.0f;
  for (int f = 0; f < job.frames; ++f) sum += value_of(pixel, f * job.channels + channel);
  return sum / static_cast<float>(job.frames);
}

// Mean square of the differences to the windowed mean.
ELEMENT float variance_at(const Job& job, int depth, int channel, int y, int x) {
  const Pixel pixel = pixel_at(job, depth, y, x);
  const float mean = job.mean[plane_index(job, depth * job.channels + channel, y, x)];
  float sum = 0.0f;
  for (int f = 0; f < job.frames; ++f) {
    const float difference = value_of(pixel, f * job.channels + channel) - mean;
    sum += difference * difference;
  }
  return sum / static_cast<float>(job.frames);
}

// What becomes of a finished cost on its way into the volume.
ELEMENT float finished(const Job& job, float cost) {
  if (job.epilogue == LOG_ENERGY) return logf((job.residual ? cost : cost * cost) + job.log_floor);
  if (job.epilogue == BOUND) return tanhf(job.bound * cost);
  return cost;
}

// A slice to be filtered along the edges of the guide: its cost, or cost times guide.
ELEMENT float guided_at(const Job& job, int depth, int channel, int y, int x) {
  const float cost = load(job.costs + plane_index(job, depth, y, x));
  return channel == 0 ? cost : cost * load(job.guide + plane_index(job, 0, y, x));
}
