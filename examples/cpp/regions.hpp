// From a map to regions: docs/reference/bundle-format.md, "Regions".
#pragma once

#include <array>
#include <vector>

struct Region {
    std::array<int, 4> box;  ///< left, top, width and height in the image's pixels
    double area;             ///< in the image's pixels
    double peak;             ///< what the image would score for this region alone
};

/// The regions that made a score exceed its limit, the highest peaks first, 20 at most.
/// `map` has rows * columns cells; the image has height * width pixels.
std::vector<Region> find_regions(const std::vector<float>& map, int rows, int columns, double score,
                                 double limit, int height, int width);
