#include "image.hpp"

#include <png.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <iterator>

namespace {

constexpr int smallest_side = 16;
constexpr std::uint64_t most_pixels = std::uint64_t{1} << 27;

const char* fault_of_size(std::uint64_t height, std::uint64_t width) {
    if (std::min(height, width) < smallest_side) return "it is smaller than 16 pixels on a side";
    return height * width > most_pixels ? "it has more than 134 million pixels" : nullptr;
}

std::uint8_t rounded(float value) {  // to the nearest, a tie to the even one
    return static_cast<std::uint8_t>(std::clamp(std::lrint(value), 0L, 255L));
}

/// What lives across libpng's jumps stands here, and not on the stack of the function they return to.
struct PngFile {
    explicit PngFile(const std::string& content) : content(content) {}

    const std::string& content;
    std::size_t place = 0;
    std::string fault;
    png_uint_32 height = 0, width = 0;
    int bytes_each = 1;
    std::vector<std::uint8_t> levels;
    std::vector<png_bytep> rows;
};

/// Decode to RGB of 8 or 16 bits; false: `fault` says why not.
bool decode(PngFile& file) {
    png_structp png = png_create_read_struct(
        PNG_LIBPNG_VER_STRING, &file,
        [](png_structp self, png_const_charp message) {
            static_cast<PngFile*>(png_get_error_ptr(self))->fault = message;
            png_longjmp(self, 1);
        },
        [](png_structp, png_const_charp) {});
    png_infop info = png_create_info_struct(png);
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_read_struct(&png, &info, nullptr);
        return false;
    }
    png_set_read_fn(png, &file, [](png_structp self, png_bytep into, png_size_t count) {
        auto& from = *static_cast<PngFile*>(png_get_io_ptr(self));
        if (count > from.content.size() - from.place) png_error(self, "it ends too early");
        std::copy_n(from.content.data() + from.place, count, into);
        from.place += count;
    });
    png_set_user_limits(png, most_pixels, most_pixels);
    png_read_info(png, info);
    file.width = png_get_image_width(png, info);
    file.height = png_get_image_height(png, info);
    if (const char* fault = fault_of_size(file.height, file.width)) png_error(png, fault);
    png_set_expand(png);  // palettes and fewer than 8 bits
    png_set_gray_to_rgb(png);
    png_set_strip_alpha(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
    file.bytes_each = png_get_bit_depth(png, info) / 8;
    const std::size_t stride = std::size_t{file.width} * 3 * file.bytes_each;
    file.levels.resize(stride * file.height);
    for (png_uint_32 y = 0; y < file.height; ++y)
        file.rows.push_back(file.levels.data() + y * stride);
    png_read_image(png, file.rows.data());
    png_read_end(png, info);
    if (png_get_valid(png, info, PNG_INFO_eXIf))
        png_error(png, "it has EXIF data, and how that turns the image is not read here");
    png_destroy_read_struct(&png, &info, nullptr);
    return true;
}

Image read_png(const std::string& path, const std::string& content) {
    PngFile file(content);
    if (!decode(file)) throw BadInput(path + " cannot be used: " + file.fault);
    Image image(static_cast<int>(file.height), static_cast<int>(file.width), 3);
    for (std::size_t i = 0; i < image.levels.size(); ++i)  // 65535 becomes 255
        image.levels[i] = file.bytes_each == 1
            ? file.levels[i]
            : rounded(static_cast<float>(file.levels[2 * i] << 8 | file.levels[2 * i + 1]) / 257);
    return image;
}

Image read_pnm(const std::string& path, const std::string& content) {
    const int channels = content[1] == '6' ? 3 : 1;
    std::size_t place = 2;
    long numbers[3];  // width, height, largest level
    for (long& number : numbers) {
        while (place < content.size() && (std::isspace(content[place] & 0xff) || content[place] == '#'))
            if (content[place++] == '#') place = std::min(content.find('\n', place), content.size());
        number = 0;
        const std::size_t first = place;
        while (place < content.size() && std::isdigit(content[place] & 0xff) && place < first + 9)
            number = 10 * number + (content[place++] - '0');
        if (place == first) throw BadInput(path + " has no PPM or PGM header");
    }
    ++place;  // one blank
    if (const char* fault = fault_of_size(numbers[1], numbers[0]))
        throw BadInput(path + " cannot be used: " + fault);
    if (numbers[2] != 255) throw BadInput(path + " has another largest level than 255");
    Image image(static_cast<int>(numbers[1]), static_cast<int>(numbers[0]), 3);
    const std::size_t count = image.levels.size() / 3 * channels;
    if (content.size() < place + count) throw BadInput(path + " ends too early");
    for (std::size_t i = 0; i < image.levels.size(); ++i)
        image.levels[i] = static_cast<std::uint8_t>(content[place + (channels == 3 ? i : i / 3)]);
    return image;
}

/// The part of a source pixel that a smaller pixel covers.
struct Share {
    int source, target;
    float weight;
};

std::vector<Share> shares_of(int from, int to) {
    const double scale = static_cast<double>(from) / to;
    std::vector<Share> shares;
    for (int target = 0; target < to; ++target) {
        const double first = target * scale, last = first + scale;
        const double covered = std::min(scale, from - first);
        const int end = std::min(static_cast<int>(std::floor(last)), from - 1);
        const int begin = std::min(static_cast<int>(std::ceil(first)), end);
        if (begin - first > 1e-3)
            shares.push_back({begin - 1, target, static_cast<float>((begin - first) / covered)});
        for (int source = begin; source < end; ++source)
            shares.push_back({source, target, static_cast<float>(1.0 / covered)});
        if (last - end > 1e-3)
            shares.push_back({end, target, static_cast<float>(
                std::min(std::min(last - end, 1.0), covered) / covered)});
    }
    return shares;
}

/// Sums of whole pixels, divided once.
Image averaged_whole(const Image& image, int height, int width) {
    const int down = image.height / height, across = image.width / width;
    const int channels = image.channels, area = down * across;
    const float share = 1.0f / static_cast<float>(area);
    Image result(height, width, channels);
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x)
            for (int c = 0; c < channels; ++c) {
                int sum = 0;
                for (int dy = 0; dy < down; ++dy)
                    for (int dx = 0; dx < across; ++dx)
                        sum += image.row(y * down + dy)[(x * across + dx) * channels + c];
                result.row(y)[x * channels + c] = down == 2 && across == 2
                    ? static_cast<std::uint8_t>((sum + 2) >> 2)
                    : rounded(static_cast<float>(sum) * share);
            }
    return result;
}

Image averaged(const Image& image, int height, int width) {
    if (image.height % height == 0 && image.width % width == 0)
        return averaged_whole(image, height, width);
    const int channels = image.channels;
    const std::vector<Share> across = shares_of(image.width, width);
    const std::vector<Share> down = shares_of(image.height, height);
    std::vector<float> line(static_cast<std::size_t>(width) * channels), sum(line.size());
    Image result(height, width, channels);
    for (std::size_t i = 0; i < down.size(); ++i) {
        const auto& [source, target, weight] = down[i];
        std::fill(line.begin(), line.end(), 0.0f);
        const std::uint8_t* from = image.row(source);
        for (const Share& share : across)
            for (int c = 0; c < channels; ++c)
                line[share.target * channels + c] += from[share.source * channels + c] * share.weight;
        const bool first = i == 0 || down[i - 1].target != target;
        for (std::size_t x = 0; x < sum.size(); ++x)
            sum[x] = first ? weight * line[x] : sum[x] + weight * line[x];
        if (i + 1 == down.size() || down[i + 1].target != target)
            std::transform(sum.begin(), sum.end(), result.row(target), rounded);
    }
    return result;
}

/// The two source pixels between which a larger image's pixel lies, in 2048ths.
struct Between {
    int low, high, low_weight, high_weight;
};

std::vector<Between> between(int from, int to) {
    const double scale = 1.0 / (static_cast<double>(to) / from);
    std::vector<Between> places;
    for (int target = 0; target < to; ++target) {
        float share = static_cast<float>((target + 0.5) * scale - 0.5);
        int low = static_cast<int>(std::floor(share));
        share -= static_cast<float>(low);
        // Beyond the edge the edge is repeated. The weights stay: that rounds as OpenCV does.
        places.push_back({std::clamp(low, 0, from - 1), std::clamp(low + 1, 0, from - 1),
                          static_cast<int>(std::lrint((1.0f - share) * 2048.0f)),
                          static_cast<int>(std::lrint(share * 2048.0f))});
    }
    return places;
}

Image interpolated(const Image& image, int height, int width) {
    const int channels = image.channels;
    const std::vector<Between> across = between(image.width, width);
    const std::vector<Between> down = between(image.height, height);
    const auto line = [&](int y) {
        std::vector<int> levels;
        for (const Between& place : across)
            for (int c = 0; c < channels; ++c)
                levels.push_back(image.row(y)[place.low * channels + c] * place.low_weight
                                 + image.row(y)[place.high * channels + c] * place.high_weight);
        return levels;
    };
    Image result(height, width, channels);
    for (int y = 0; y < height; ++y) {
        const Between& place = down[y];
        const std::vector<int> above = line(place.low), below = line(place.high);
        for (std::size_t x = 0; x < above.size(); ++x)
            result.row(y)[x] = static_cast<std::uint8_t>(
                ((place.low_weight * (above[x] >> 4) >> 16)
                 + (place.high_weight * (below[x] >> 4) >> 16) + 2) >> 2);
    }
    return result;
}

}  // namespace

std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string content{std::istreambuf_iterator<char>(file), {}};
    if (!file || content.empty()) throw BadInput(path + " cannot be read, or is empty");
    return content;
}

Image read_image(const std::string& path) {
    const std::string content = read_file(path);
    if (content.compare(0, 8, "\x89PNG\r\n\x1a\n", 8) == 0) return read_png(path, content);
    if (content.size() > 2 && content[0] == 'P' && (content[1] == '5' || content[1] == '6'))
        return read_pnm(path, content);
    throw BadInput(path + " is neither PNG nor binary PPM or PGM");
}

Image fit_image(const Image& image, int height, int width) {
    Image fitted = image;
    if (height < image.height || width < image.width)
        fitted = averaged(image, std::min(height, image.height), std::min(width, image.width));
    if (height > fitted.height || width > fitted.width)
        fitted = interpolated(fitted, height, width);
    return fitted;
}

Image grey_of(const Image& image) {
    Image grey(image.height, image.width, 1);
    for (std::size_t i = 0; i < grey.levels.size(); ++i) {
        const std::uint8_t* rgb = image.levels.data() + 3 * i;
        grey.levels[i] = static_cast<std::uint8_t>(
            (9798 * rgb[0] + 19235 * rgb[1] + 3735 * rgb[2] + 16384) >> 15);
    }
    return grey;
}
