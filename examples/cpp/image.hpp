// An image file as the model's input: docs/reference/bundle-format.md, "From a file to a frame".
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

/// What the user gave cannot be used: a file, a name, a bundle. The program ends with code 2.
struct BadInput : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Rows of pixels, `channels` bytes each: 3 is RGB, 1 is grey.
struct Image {
    int height = 0, width = 0, channels = 3;
    std::vector<std::uint8_t> levels;

    Image(int height, int width, int channels)
        : height(height), width(width), channels(channels),
          levels(static_cast<std::size_t>(height) * width * channels) {}

    const std::uint8_t* row(int y) const {
        return levels.data() + static_cast<std::size_t>(y) * width * channels;
    }
    std::uint8_t* row(int y) {
        return levels.data() + static_cast<std::size_t>(y) * width * channels;
    }
};

/// The whole content of a file. Throws BadInput.
std::string read_file(const std::string& path);

/// Read a PNG (8 or 16 bits; alpha is dropped) or a binary PPM or PGM (8 bits). Throws BadInput.
Image read_image(const std::string& path);

/// Stretch an image: axes that shrink are averaged over areas, axes that grow are interpolated.
Image fit_image(const Image& image, int height, int width);

/// 8-bit grey levels of an RGB image.
Image grey_of(const Image& image);
