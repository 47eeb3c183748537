#include "usable.hpp"

#include <openssl/evp.h>

#include <cmath>
#include <cstdio>

namespace {

constexpr int side = 56, reach = 12, middle = side - 2 * reach;

struct Moments {
    double mean, variance;
};

template <class Values>
Moments moments_of(const Values& values) {
    double sum = 0, squares = 0;
    for (const double value : values) sum += value;
    const double mean = sum / static_cast<double>(values.size());
    for (const double value : values) squares += (value - mean) * (value - mean);
    return {mean, squares / static_cast<double>(values.size())};
}

std::string said(const char* words, double value, const char* how, double limit) {
    char text[120];
    std::snprintf(text, sizeof text, "%s %.1f, at %s %.1f", words, value, how, limit);
    return text;
}

}  // namespace

Quality measure(const Image& grey) {
    const auto at = [&](int y, int x) {  // mirrored at the edge, which is not repeated
        y = y < 0 ? 1 : y == grey.height ? y - 2 : y;
        x = x < 0 ? 1 : x == grey.width ? x - 2 : x;
        return static_cast<double>(grey.row(y)[x]);
    };
    std::vector<double> edges;
    for (int y = 0; y < grey.height; ++y)
        for (int x = 0; x < grey.width; ++x)
            edges.push_back(at(y - 1, x) + at(y + 1, x) + at(y, x - 1) + at(y, x + 1) - 4 * at(y, x));
    const Moments levels = moments_of(grey.levels);
    return {levels.mean, std::sqrt(levels.variance), moments_of(edges).variance};
}

std::string fault(const Quality& quality, const nlohmann::json& limits) {
    const double low = limits.at("brightness_low"), high = limits.at("brightness_high");
    const double contrast = limits.at("contrast_low"), sharpness = limits.at("sharpness_low");
    if (quality.brightness < low)
        return said(quality.brightness <= 5 ? "black: brightness" : "too dark: brightness",
                    quality.brightness, "least", low);
    if (quality.brightness > high)
        return said(quality.brightness >= 250 ? "saturated: brightness" : "too bright: brightness",
                    quality.brightness, "most", high);
    if (quality.contrast < contrast)
        return said("no contrast:", quality.contrast, "least", contrast);
    if (quality.sharpness < sharpness)
        return said("blurred: sharpness", quality.sharpness, "least", sharpness);
    return "";
}

std::string moved(const Image& grey, const nlohmann::json& placement) {
    const std::string text = placement.at("reference");
    std::vector<unsigned char> reference(text.size());
    const int decoded = EVP_DecodeBlock(
        reference.data(), reinterpret_cast<const unsigned char*>(text.data()),
        static_cast<int>(text.size()));
    if (decoded != side * side + 2) throw BadInput("a category's placement has no reference");
    const Image small = fit_image(grey, side, side);
    std::vector<double> part;
    for (int y = reach; y < side - reach; ++y)
        part.insert(part.end(), small.row(y) + reach, small.row(y) + side - reach);
    const Moments own = moments_of(part);
    if (std::sqrt(own.variance) < 1e-3) return "";
    double best = -2, here = 0, shift = 0;
    for (int top = 0; top <= 2 * reach; ++top)
        for (int left = 0; left <= 2 * reach; ++left) {
            std::vector<double> there;
            for (int y = top; y < top + middle; ++y)
                there.insert(there.end(), reference.begin() + y * side + left,
                             reference.begin() + y * side + left + middle);
            const Moments other = moments_of(there);
            double match = 0;
            for (std::size_t i = 0; i < part.size(); ++i)
                match += (part[i] - own.mean) * (there[i] - other.mean);
            const double scale = std::sqrt(own.variance * other.variance);
            match = scale > 0 ? match / (static_cast<double>(part.size()) * scale) : 0;
            if (match > best) best = match, shift = std::hypot(top - reach, left - reach) / side;
            if (top == reach && left == reach) here = match;
        }
    const double gain_high = placement.at("gain_high"), similar = placement.at("similarity_low");
    if (best - here <= gain_high || best < similar || shift < 0.05) return "";
    char words[120];
    std::snprintf(words, sizeof words, "moved: the part lies %.0f %% of the image from its place "
                  "(match %.2f there, %.2f here)", 100 * shift, best, here);
    return words;
}
