// Which images lead to no decision: docs/reference/bundle-format.md, "Usable images".
#pragma once

#include <nlohmann/json.hpp>

#include <string>

#include "image.hpp"

struct Quality {
    double brightness, contrast, sharpness;
};

/// Measure a frame's grey levels.
Quality measure(const Image& grey);

/// Why a frame is outside limits (`image_limits` or a category's `image`); empty: it is not.
std::string fault(const Quality& quality, const nlohmann::json& limits);

/// Why a frame was taken by a camera that has moved; empty: it was not.
std::string moved(const Image& grey, const nlohmann::json& placement);
