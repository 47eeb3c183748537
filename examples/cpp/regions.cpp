#include "regions.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace {

constexpr int cell = 16;
constexpr std::size_t most_regions = 20;

struct Grid {
    int height, width;
    std::vector<float> values;
    Grid(int height, int width, float value = 0)
        : height(height), width(width), values(static_cast<std::size_t>(height) * width, value) {}
    float& at(int y, int x) { return values[static_cast<std::size_t>(y) * width + x]; }
    float at(int y, int x) const { return values[static_cast<std::size_t>(y) * width + x]; }
};

/// Bilinear, corners aligned.
Grid enlarged(const std::vector<float>& map, int rows, int columns) {
    Grid grid(cell * rows, cell * columns);
    const auto place = [](int target, int from, int to) {
        const double at = to > 1 ? target * (from - 1.0) / (to - 1.0) : 0.0;
        const int below = std::min(static_cast<int>(at), std::max(from - 2, 0));
        return std::pair<int, float>(below, static_cast<float>(at - below));
    };
    for (int y = 0; y < grid.height; ++y)
        for (int x = 0; x < grid.width; ++x) {
            const auto [row, down] = place(y, rows, grid.height);
            const auto [column, across] = place(x, columns, grid.width);
            const auto at = [&](int dy, int dx) {
                return map[std::min(row + dy, rows - 1) * columns + std::min(column + dx, columns - 1)];
            };
            const float left = (1 - down) * at(0, 0) + down * at(1, 0);
            const float right = (1 - down) * at(0, 1) + down * at(1, 1);
            grid.at(y, x) = (1 - across) * left + across * right;
        }
    return grid;
}

/// The average of each 16x16 window, at its top left pixel.
Grid window_means(const Grid& grid) {
    std::vector<double> sums(static_cast<std::size_t>(grid.height + 1) * (grid.width + 1), 0.0);
    const auto sum = [&](int y, int x) -> double& {
        return sums[static_cast<std::size_t>(y) * (grid.width + 1) + x];
    };
    for (int y = 0; y < grid.height; ++y)
        for (int x = 0; x < grid.width; ++x)
            sum(y + 1, x + 1) = grid.at(y, x) + sum(y, x + 1) + sum(y + 1, x) - sum(y, x);
    Grid means(grid.height - cell + 1, grid.width - cell + 1);
    for (int y = 0; y < means.height; ++y)
        for (int x = 0; x < means.width; ++x)
            means.at(y, x) = static_cast<float>(
                (sum(y + cell, x + cell) - sum(y, x + cell) - sum(y + cell, x) + sum(y, x))
                / (cell * cell));
    return means;
}

/// Pixels above a bound that touch, corners included.
using Pixels = std::vector<std::pair<int, int>>;

Pixels connected(std::vector<char>& open, const Grid& grid, int first_y, int first_x) {
    Pixels found{{first_y, first_x}};
    open[static_cast<std::size_t>(first_y) * grid.width + first_x] = 0;
    for (std::size_t i = 0; i < found.size(); ++i) {
        const auto [row, column] = found[i];
        for (int y = std::max(row - 1, 0); y <= std::min(row + 1, grid.height - 1); ++y)
            for (int x = std::max(column - 1, 0); x <= std::min(column + 1, grid.width - 1); ++x) {
                char& mark = open[static_cast<std::size_t>(y) * grid.width + x];
                if (mark) found.emplace_back(y, x);
                mark = 0;
            }
    }
    return found;
}

}  // namespace

std::vector<Region> find_regions(const std::vector<float>& map, int rows, int columns, double score,
                                 double limit, int height, int width) {
    if (!(score > limit)) return {};
    const Grid grid = enlarged(map, rows, columns);
    const Grid means = window_means(grid);
    const double level = *std::max_element(means.values.begin(), means.values.end()) - score;
    const float highest = *std::max_element(grid.values.begin(), grid.values.end());
    const float bound = std::min(static_cast<float>(limit + level),
                                 std::nextafter(highest, -std::numeric_limits<float>::infinity()));
    std::vector<char> open(grid.values.size());
    std::transform(grid.values.begin(), grid.values.end(), open.begin(),
                   [&](float value) { return static_cast<char>(value > bound); });
    const double down = static_cast<double>(height) / grid.height;
    const double across = static_cast<double>(width) / grid.width;
    std::vector<Region> regions;
    for (int y = 0; y < grid.height; ++y)
        for (int x = 0; x < grid.width; ++x) {
            if (!open[static_cast<std::size_t>(y) * grid.width + x]) continue;
            const Pixels pixels = connected(open, grid, y, x);
            int top = grid.height, left = grid.width, bottom = 0, right = 0;
            double peak = -std::numeric_limits<double>::infinity();
            for (const auto& [row, column] : pixels) {
                top = std::min(top, row), bottom = std::max(bottom, row + 1);
                left = std::min(left, column), right = std::max(right, column + 1);
                // the highest of the windows that this pixel lies in
                for (int a = std::max(row - cell + 1, 0); a <= std::min(row, means.height - 1); ++a)
                    for (int b = std::max(column - cell + 1, 0);
                         b <= std::min(column, means.width - 1); ++b)
                        peak = std::max(peak, means.at(a, b) - level);
            }
            const int x0 = static_cast<int>(std::floor(left * across));
            const int y0 = static_cast<int>(std::floor(top * down));
            const int x1 = static_cast<int>(std::ceil(right * across));
            const int y1 = static_cast<int>(std::ceil(bottom * down));
            regions.push_back({{x0, y0, x1 - x0, y1 - y0},
                               static_cast<double>(pixels.size()) * across * down, peak});
        }
    std::sort(regions.begin(), regions.end(),
              [](const Region& one, const Region& other) { return one.peak > other.peak; });
    const auto above = std::partition_point(regions.begin(), regions.end(),
                                            [&](const Region& one) { return one.peak > limit; });
    if (above == regions.begin())  // the score exceeds the limit by less than float32 can tell
        regions.resize(1), regions[0].peak = score;
    else
        regions.erase(above, regions.end());
    regions.resize(std::min(regions.size(), most_regions), Region{});
    return regions;
}
