// Everything of the cost volumes that is not an FFT. Formulas: ../reference.py; order of the kernels: volume.py.
// What comes after the volume is in aggregation.cuh. How kernels are written: phases.cuh.
#include "phases.cuh"

// --- before the FFTs ------------------------------------------------------------------------------------------------

// uint8 images to planes of linear intensity with a reflected border. Grid: (padded_width / threads, padded_height, frames).
ELEMENT void linear_planes_block(const Job& job, const Block& block, float*) {
  EACH_THREAD {
    const int x = block.x * block.threads + thread;
    if (x >= job.padded_width) continue;
    const int from_y = reflected(block.y - job.pad_top, job.height), from_x = reflected(x - job.pad_left, job.width);
    const unsigned char* pixel =
        job.images + plane_index(job, block.z, from_y, from_x) * job.image_channels;
    const long long plane = static_cast<long long>(job.padded_height) * job.padded_width;
    float* out = job.planes + block.z * job.channels * plane + static_cast<long long>(block.y) * job.padded_width + x;
    float luma = 0.0f;
    for (int c = 0; c < job.image_channels; ++c) {
      const float linear = load(job.linear + 256 * c + pixel[c]);
      if (job.channels == 3) out[c * plane] = linear;
      luma += linear;
    }
    if (job.channels == 1) *out = luma;
  }
}
KERNEL(linear_planes)

// Transfer functions of the tabulated disk, a sum of cosines over its quadrant, linear between two radii.
// Grid: (columns / threads, padded_height / 2 + 1, depths * frames). Shared: taps floats.
ELEMENT void table_transfer_block(const Job& job, const Block& block, float* shared) {
  const float first_radius = 0.5f, radii_per_px = 10.0f;
  const float position = fmaxf((load(job.diameters + block.z) * 0.5f - first_radius) * radii_per_px, 0.0f);
  const int below = static_cast<int>(position);
  const float weight = position - static_cast<float>(below);
  EACH_THREAD {
    for (int b = thread; b < job.taps; b += block.threads) {
      const float* disk = job.disks + static_cast<long long>(below) * job.taps * job.taps + b;
      const float* next = disk + job.taps * job.taps;
      float sum = 0.0f;
      for (int a = 0; a < job.taps; ++a) {
        const float tap = (1.0f - weight) * load(disk + a * job.taps) + weight * load(next + a * job.taps);
        sum += tap * load(job.row_cosines + block.y * job.taps + a);
      }
      shared[b] = sum;
    }
  }
  BARRIER();
  EACH_THREAD {
    const int column = block.x * block.threads + thread;
    if (column >= columns_of(job)) continue;
    float sum = 0.0f;
    for (int b = 0; b < job.taps; ++b) sum += shared[b] * load(job.column_cosines + column * job.taps + b);
    const long long row = static_cast<long long>(block.z) * (job.padded_height / 2 + 1) + block.y;
    job.quadrants[row * columns_of(job) + column] = sum;
  }
}
KERNEL(table_transfer)

// What one sharp image, blurred again for each focus, leaves of every image: Y_f - k_f X. MOVED: of images moved to their
// place at the hypothesis. Grid: (padded_height * columns / threads, depths). Shared: frames * threads floats.
template <int CHANNELS, bool MOVED>
ELEMENT void residual_pairs_of(const Job& job, const Block& block, float* shared) {
  EACH_THREAD {
    const int bins = job.padded_height * columns_of(job), index = block.x * block.threads + thread;
    if (index >= bins) continue;
    const Bin bin = bin_at(job, index);
    float* k = shared + thread;
    float power = job.eps;
    float2 sharp[CHANNELS];
    for (int c = 0; c < CHANNELS; ++c) sharp[c].x = sharp[c].y = 0.0f;
    const float2* y = job.spectra + index;
    for (int f = 0; f < job.frames; ++f) {
      const float k_f = transfer_at(job, block.y, f, bin);
      k[f * block.threads] = k_f;
      power += k_f * k_f;
      const float2 shift = shift_at<MOVED>(job, block.y, f, bin);
      for (int c = 0; c < CHANNELS; ++c, y += bins) {
        const float2 value = MOVED ? product(load(y), shift) : load(y);
        sharp[c].x += k_f * value.x;
        sharp[c].y += k_f * value.y;
      }
    }
    const float scale = 1.0f / power;
    for (int c = 0; c < CHANNELS; ++c) {
      sharp[c].x *= scale;
      sharp[c].y *= scale;
    }
    PairWriter writer = pair_writer(job, block.y, bin);
    y = job.spectra + index;
    for (int f = 0; f < job.frames; ++f) {
      const float k_f = k[f * block.threads];
      const float2 shift = shift_at<MOVED>(job, block.y, f, bin);
      for (int c = 0; c < CHANNELS; ++c, y += bins) {
        float2 residual = MOVED ? product(load(y), shift) : load(y);
        residual.x -= k_f * sharp[c].x;
        residual.y -= k_f * sharp[c].y;
        add_image(writer, residual);
      }
    }
    finish_pairs(writer);
  }
}
ELEMENT void residual_pairs_block(const Job& job, const Block& block, float* shared) {
  if (job.channels == 3) {
    residual_pairs_of<3, false>(job, block, shared);
  } else {
    residual_pairs_of<1, false>(job, block, shared);
  }
}
ELEMENT void moved_pairs_block(const Job& job, const Block& block, float* shared) {
  if (job.channels == 3) {
    residual_pairs_of<3, true>(job, block, shared);
  } else {
    residual_pairs_of<1, true>(job, block, shared);
  }
}
KERNEL(residual_pairs)
KERNEL(moved_pairs)

// Every image deblurred on its own. Grid: (padded_height * columns / threads, depths).
ELEMENT void wiener_pairs_block(const Job& job, const Block& block, float*) {
  EACH_THREAD {
    const int bins = job.padded_height * columns_of(job), index = block.x * block.threads + thread;
    if (index >= bins) continue;
    const Bin bin = bin_at(job, index);
    PairWriter writer = pair_writer(job, block.y, bin);
    const float2* y = job.spectra + index;
    for (int f = 0; f < job.frames; ++f) {
      const float factor = wiener_factor(job, bin, transfer_at(job, block.y, f, bin));
      for (int c = 0; c < job.channels; ++c, y += bins) {
        float2 value = load(y);
        value.x *= factor;
        value.y *= factor;
        add_image(writer, value);
      }
    }
    finish_pairs(writer);
  }
}
KERNEL(wiener_pairs)

// What white noise leaves of itself at every hypothesis, ../problem.py's noise_gain: the mean over one octant of the
// frequency square, which holds every radius with its share. Grid: (depths). Shared: OCTANT floats.
constexpr int AXIS = 16, OCTANT = AXIS * (AXIS + 1) / 2;

ELEMENT void noise_gains_block(const Job& job, const Block& block, float* shared) {
  EACH_THREAD {
    for (int i = thread; i < OCTANT; i += block.threads) {
      int row = 0, column = i;  // i counts the upper triangle row by row
      for (int length = AXIS; column >= length; --length) {
        column -= length;
        ++row;
      }
      column += row;
      const float down = (row + 0.5f) / (2.0f * AXIS), across = (column + 0.5f) / (2.0f * AXIS);
      float power = job.eps;
      for (int f = 0; f < job.frames; ++f) {
        const float k = radial_transfer(job, block.x * job.frames + f, sqrtf(down * down + across * across));
        power += k * k;
      }
      const float unseen = job.eps / power;
      shared[i] = (row == column ? 1.0f : 2.0f) * unseen * unseen;
    }
  }
  BARRIER();
  EACH_THREAD {
    if (thread != 0) continue;
    float sum = 0.0f;
    for (int i = 0; i < OCTANT; ++i) sum += shared[i];
    job.gains[block.x] = static_cast<float>(job.frames - 1) + sum / static_cast<float>(AXIS * AXIS);
  }
}
KERNEL(noise_gains)

// --- after the inverse FFTs -----------------------------------------------------------------------------------------

enum RowSource { ENERGY, SEEN, MEAN, VARIANCE, GUIDED, COEFFICIENT };

// A value of the images, windowed along rows. Grid: (width / threads, height, depths * planes).
// Shared: threads + 2 window_radius floats.
template <RowSource SOURCE>
ELEMENT void rows_of(const Job& job, const Block& block, float* shared) {
  const int begin = block.x * block.threads, y = block.y;
  const int planes = SOURCE == ENERGY ? 1 : SOURCE == SEEN ? 2 : job.channels;
  const int depth = block.z / planes, channel = block.z - depth * planes;
  EACH_THREAD {
    for (int i = thread; i < block.threads + 2 * job.window_radius; i += block.threads) {
      if (begin + i - job.window_radius >= job.width + job.window_radius) break;  // no output reaches so far
      const int x = reflected(begin + i - job.window_radius, job.width);
      shared[i] = SOURCE == ENERGY     ? energy_at(job, depth, y, x)
                  : SOURCE == SEEN     ? seen_energy_at(job, depth, channel, y, x)
                  : SOURCE == MEAN     ? mean_at(job, depth, channel, y, x)
                  : SOURCE == VARIANCE ? variance_at(job, depth, channel, y, x)
                  : SOURCE == GUIDED   ? guided_at(job, depth, channel, y, x)
                                       : job.mean[plane_index(job, block.z, y, x)];
    }
  }
  BARRIER();
  EACH_THREAD {
    if (begin + thread >= job.width) continue;
    const float* centre = shared + thread + job.window_radius;
    float sum = load(job.window) * centre[0];
    for (int i = 1; i <= job.window_radius; ++i) sum += load(job.window + i) * (centre[-i] + centre[i]);
    job.rows[plane_index(job, block.z, y, begin + thread)] = sum;
  }
}
ELEMENT void energy_rows_block(const Job& job, const Block& block, float* shared) { rows_of<ENERGY>(job, block, shared); }
ELEMENT void seen_rows_block(const Job& job, const Block& block, float* shared) { rows_of<SEEN>(job, block, shared); }
ELEMENT void mean_rows_block(const Job& job, const Block& block, float* shared) { rows_of<MEAN>(job, block, shared); }
ELEMENT void variance_rows_block(const Job& job, const Block& block, float* shared) {
  rows_of<VARIANCE>(job, block, shared);
}
KERNEL(energy_rows)
KERNEL(seen_rows)
KERNEL(mean_rows)
KERNEL(variance_rows)

// The window along columns, for tiles of TILE x TILE pixels, and what follows it. Grid: (width / TILE, height / TILE,
// depths). Shared: TILE * (TILE + 2 window_radius) floats, then TILE * TILE windowed ones for each plane. A thread reads
// no windowed value but its own, so that no barrier follows the last plane.
constexpr int TILE = 32;

ELEMENT void window_columns(const Job& job, const Block& block, float* shared, int planes) {
  const int tall = TILE + 2 * job.window_radius;
  float* windowed = shared + TILE * tall;
  for (int plane = 0; plane < planes; ++plane) {
    if (plane > 0) BARRIER();
    EACH_THREAD {
      for (int i = thread; i < TILE * tall; i += block.threads) {
        const int x = block.x * TILE + i % TILE;
        const int y = reflected(block.y * TILE + i / TILE - job.window_radius, job.height);
        shared[i] = x < job.width ? job.rows[plane_index(job, block.z * planes + plane, y, x)] : 0.0f;
      }
    }
    BARRIER();
    EACH_THREAD {
      for (int i = thread; i < TILE * TILE; i += block.threads) {
        const float* centre = shared + i + TILE * job.window_radius;
        float sum = load(job.window) * centre[0];
        for (int k = 1; k <= job.window_radius; ++k) {
          sum += load(job.window + k) * (centre[-k * TILE] + centre[k * TILE]);
        }
        windowed[plane * TILE * TILE + i] = sum;
      }
    }
  }
}

// Plane `channel` of pixel i of the tile, with the window across colours where there is one.
ELEMENT float mixed(const Job& job, const float* windowed, int channel, int i) {
  if (!job.mix_channels) return windowed[channel * TILE * TILE + i];
  float sum = 0.0f;
  for (int c = 0; c < 3; ++c) sum += load(job.mixing + 3 * channel + c) * windowed[c * TILE * TILE + i];
  return sum;
}

#define EACH_PIXEL_OF_TILE                                                                   \
  for (int i = thread, x, y; i < TILE * TILE; i += block.threads)                            \
    if ((x = block.x * TILE + i % TILE) < job.width && (y = block.y * TILE + i / TILE) < job.height)

// The residual volume: the window along columns, over what noise would leave.
ELEMENT void residual_columns_block(const Job& job, const Block& block, float* shared) {
  window_columns(job, block, shared, 1);
  const float* windowed = shared + TILE * (TILE + 2 * job.window_radius);
  const float gain = load(job.gains + block.z);
  EACH_THREAD {
    EACH_PIXEL_OF_TILE {
      store(job.volume, plane_index(job, block.z, y, x), finished(job, windowed[i] / gain), job.half_output);
    }
  }
}
KERNEL(residual_columns)

// The same of a camera that moves: over what noise would leave of the frames that see a pixel.
ELEMENT void seen_columns_block(const Job& job, const Block& block, float* shared) {
  window_columns(job, block, shared, 2);
  const float* windowed = shared + TILE * (TILE + 2 * job.window_radius);
  EACH_THREAD {
    EACH_PIXEL_OF_TILE {
      const float cost = windowed[i] / windowed[TILE * TILE + i];
      store(job.volume, plane_index(job, block.z, y, x), finished(job, cost), job.half_output);
    }
  }
}
KERNEL(seen_columns)

// The windowed mean of the deblurred images.
ELEMENT void mean_columns_block(const Job& job, const Block& block, float* shared) {
  window_columns(job, block, shared, job.channels);
  const float* windowed = shared + TILE * (TILE + 2 * job.window_radius);
  EACH_THREAD {
    EACH_PIXEL_OF_TILE {
      for (int c = 0; c < job.channels; ++c) {
        job.mean[plane_index(job, block.z * job.channels + c, y, x)] = mixed(job, windowed, c, i);
      }
    }
  }
}
KERNEL(mean_columns)

// The DDFS volumes: the sum over colours of the standard deviations.
ELEMENT void variance_columns_block(const Job& job, const Block& block, float* shared) {
  window_columns(job, block, shared, job.channels);
  const float* windowed = shared + TILE * (TILE + 2 * job.window_radius);
  EACH_THREAD {
    EACH_PIXEL_OF_TILE {
      float cost = 0.0f;
      for (int c = 0; c < job.channels; ++c) cost += sqrtf(mixed(job, windowed, c, i));
      store(job.volume, plane_index(job, block.z, y, x), finished(job, cost), job.half_output);
    }
  }
}
KERNEL(variance_columns)

// Bounded costs `rows` (depths, height, width) scaled to [0, 1] over the hypotheses of each pixel.
// Grid: (height * width / threads).
ELEMENT void scale_over_depth_block(const Job& job, const Block& block, float*) {
  EACH_THREAD {
    const int pixel = block.x * block.threads + thread, pixels = job.height * job.width;
    if (pixel >= pixels) continue;
    float lowest = job.rows[pixel], highest = lowest;
    for (int d = 1; d < job.depths; ++d) {
      const float cost = job.rows[static_cast<long long>(d) * pixels + pixel];
      lowest = fminf(lowest, cost);
      highest = fmaxf(highest, cost);
    }
    const float range = highest - lowest + 1e-8f;
    for (int d = 0; d < job.depths; ++d) {
      const long long index = static_cast<long long>(d) * pixels + pixel;
      store(job.volume, index, (job.rows[index] - lowest) / range, job.half_output);
    }
  }
}
KERNEL(scale_over_depth)

#include "aggregation.cuh"
