// A bundle's folder: its manifest, its files, its signature (docs/reference/bundle-format.md).
#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "image.hpp"

/// Scores above `value` are rejected.
struct Threshold {
    double value;
    int good_parts;               ///< that `scores` stand for
    std::vector<double> scores;   ///< of good parts, ascending
    std::vector<int> above;       ///< how many good parts score higher than each

    /// Share of good parts that score at least as high.
    double p_value(double score) const;
};

/// SHA-256 in hexadecimal digits.
std::string sha256_of(const std::string& content);

class Bundle {
  public:
    /// Open a folder, check its signature if `trusted` (a file of public keys) is named, and check
    /// that every file is what the manifest says. Throws BadInput.
    Bundle(const std::string& folder, const std::string& trusted);

    const nlohmann::json& manifest() const { return manifest_; }
    const std::string& folder() const { return folder_; }
    bool is_signed() const { return signed_; }
    int frame_height() const { return side(0); }
    int frame_width() const { return side(1); }

    /// The bytes of a precision's ONNX graph, as they were hashed. Throws BadInput.
    std::string graph(const std::string& precision) const;

    /// The hash that the manifest has for a precision's graph. Throws BadInput.
    std::string graph_sha256(const std::string& precision) const;

    /// Whether the manifest names a file with this hash.
    bool names(const std::string& name, const std::string& sha256) const;

    /// The threshold of a category; null: there is none.
    const Threshold* threshold(const std::string& precision, const std::string& category);

  private:
    int side(int axis) const;
    std::string checked(const std::string& name) const;
    std::string graph_name(const std::string& precision) const;

    std::string folder_;
    bool signed_;
    nlohmann::json manifest_;
    Threshold found_;
};
