// From the logarithm of a volume to depth. Formulas: ../../depth/regularization.py, ../../depth/readout.py; order of the
// kernels: ../../depth/cuda.py.

// --- guided filter: the window of kernels.cu, a box here, over costs and costs times guide --------------------------

ELEMENT void guided_rows_block(const Job& job, const Block& block, float* shared) { rows_of<GUIDED>(job, block, shared); }
ELEMENT void coefficient_rows_block(const Job& job, const Block& block, float* shared) {
  rows_of<COEFFICIENT>(job, block, shared);
}
KERNEL(guided_rows)
KERNEL(coefficient_rows)

// Mean and 1 / (variance + eps) of the guide, from its windowed rows and those of its square.
ELEMENT void guide_columns_block(const Job& job, const Block& block, float* shared) {
  window_columns(job, block, shared, 2);
  const float* windowed = shared + TILE * (TILE + 2 * job.window_radius);
  EACH_THREAD {
    EACH_PIXEL_OF_TILE {
      const float mean = windowed[i], variance = fmaxf(windowed[TILE * TILE + i] - mean * mean, 0.0f);
      job.guide_mean[plane_index(job, 0, y, x)] = mean;
      job.guide_scale[plane_index(job, 0, y, x)] = 1.0f / (variance + job.eps);
    }
  }
}
KERNEL(guide_columns)

// The locally linear model a guide + b of every window, as planes 0 and 1 of `mean`.
ELEMENT void guided_columns_block(const Job& job, const Block& block, float* shared) {
  window_columns(job, block, shared, 2);
  const float* windowed = shared + TILE * (TILE + 2 * job.window_radius);
  EACH_THREAD {
    EACH_PIXEL_OF_TILE {
      const float cost = windowed[i], guide = job.guide_mean[plane_index(job, 0, y, x)];
      const float a = (windowed[TILE * TILE + i] - guide * cost) * job.guide_scale[plane_index(job, 0, y, x)];
      job.mean[plane_index(job, 2 * block.z, y, x)] = a;
      job.mean[plane_index(job, 2 * block.z + 1, y, x)] = cost - a * guide;
    }
  }
}
KERNEL(guided_columns)

// The mean of the models of all windows that hold the pixel, at its guide.
ELEMENT void filtered_columns_block(const Job& job, const Block& block, float* shared) {
  window_columns(job, block, shared, 2);
  const float* windowed = shared + TILE * (TILE + 2 * job.window_radius);
  EACH_THREAD {
    EACH_PIXEL_OF_TILE {
      const float value = windowed[i] * load(job.guide + plane_index(job, 0, y, x)) + windowed[TILE * TILE + i];
      store(job.volume, plane_index(job, block.z, y, x), value, 0);
    }
  }
}
KERNEL(filtered_columns)

// --- semi-global matching -------------------------------------------------------------------------------------------

// Costs of the paths along one column (or row) there and back: set (or added) to `rows`, (height, width, depths).
// Threads share the hypotheses. Grid: (width or height). Shared: 2 depths + PARTS floats.
constexpr int PARTS = 16;

template <bool DOWN>
ELEMENT void paths_of(const Job& job, const Block& block, float* shared) {
  const int depths = job.depths, steps = DOWN ? job.height : job.width, stride = DOWN ? job.width : 1;
  const int begin = DOWN ? block.x : block.x * job.width;
  float* lowest = shared + 2 * depths;  // least path cost of the pixel before, of every PARTS-th hypothesis
  for (int way = 0; way < 2; ++way) {
    for (int step = 0; step < steps; ++step) {
      const int pixel = begin + stride * (way == 0 ? step : steps - 1 - step);
      const float* previous = shared + (step & 1) * depths;
      float* path = shared + (~step & 1) * depths;
      EACH_THREAD {
        float small = 0.0f, least = 0.0f;
        if (step > 0) {
          const float contrast = load(job.guide + pixel) - load(job.guide + pixel + (way == 0 ? -stride : stride));
          small = job.smoothness * expf(-fabsf(contrast) / job.edge_contrast);
          least = lowest[0];
          for (int i = 1; i < PARTS; ++i) least = fminf(least, lowest[i]);
        }
        for (int d = thread; d < depths; d += block.threads) {
          const long long index = static_cast<long long>(pixel) * depths + d;
          float cost = load(job.costs + index);
          if (step > 0) {
            float best = fminf(previous[d], least + 10.0f * small);
            if (d > 0) best = fminf(best, previous[d - 1] + small);
            if (d < depths - 1) best = fminf(best, previous[d + 1] + small);
            cost += best - least;
          }
          path[d] = cost;
          job.rows[index] = DOWN && way == 0 ? cost : job.rows[index] + cost;
        }
      }
      BARRIER();
      EACH_THREAD {
        if (thread >= PARTS) continue;
        float least = 3e38f;
        for (int d = thread; d < depths; d += PARTS) least = fminf(least, path[d]);
        lowest[thread] = least;
      }
      BARRIER();
    }
  }
}
ELEMENT void paths_down_block(const Job& job, const Block& block, float* shared) { paths_of<true>(job, block, shared); }
ELEMENT void paths_across_block(const Job& job, const Block& block, float* shared) {
  paths_of<false>(job, block, shared);
}
KERNEL(paths_down)
KERNEL(paths_across)

// --- readout --------------------------------------------------------------------------------------------------------

// `values` (depths) at a fractional index, linear in between.
ELEMENT float between(const float* values, float index, int depths) {
  const int below = static_cast<int>(fminf(index, static_cast<float>(depths - 2)));
  const float here = load(values + below);
  return here + (index - static_cast<float>(below)) * (load(values + below + 1) - here);
}

// Median and spread of a probability `costs` (depths, height, width) as inverse depth and its standard deviation, the
// two planes of `volume`. Grid: (height * width / threads).
ELEMENT void read_out_block(const Job& job, const Block& block, float*) {
  EACH_THREAD {
    const int pixel = block.x * block.threads + thread, pixels = job.height * job.width, last = job.depths - 1;
    if (pixel >= pixels) continue;
    int cell = 0;  // the hypothesis that the median lies in
    float total = 0.0f, moment = 0.0f, before = 0.0f, before_moment = 0.0f, inside = 0.0f;
    for (int d = 0; d <= last; ++d) {
      const float p = load(job.costs + static_cast<long long>(d) * pixels + pixel);
      if (d == cell) inside = p;
      total += p;
      moment += static_cast<float>(d) * p;
      if (d < last && total < 0.5f) {
        ++cell;
        before = total;
        before_moment = moment;
      }
    }
    const float position = static_cast<float>(cell);
    const float half = fminf(fmaxf((0.5f - before) / fmaxf(inside, 1e-12f), 0.0f), 1.0f);
    const float index = fminf(fmaxf(position + half - 0.5f, 0.0f), static_cast<float>(last));
    const float after = total - before - inside, after_moment = moment - before_moment - position * inside;
    const float deviation =
        index * before - before_moment + inside * fabsf(position - index) + after_moment - index * after;
    store(job.volume, pixel, between(job.levels, index, job.depths), 0);
    const float spread = 1.2533141f * job.sigma_scale * deviation + 0.02f;  // sqrt(pi / 2) and the floor of ../../network/readout.py
    store(job.volume, static_cast<long long>(pixels) + pixel, spread * between(job.level_steps, index, job.depths), 0);
  }
}
KERNEL(read_out)
