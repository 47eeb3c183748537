#include "bundle.hpp"

#include <openssl/evp.h>
#include <openssl/pem.h>

#include <algorithm>
#include <cstdio>
#include <memory>

using nlohmann::json;

namespace {

constexpr const char* format = "hvq-edge-bundle/1";
constexpr const char* signature_format = "hvq-edge-signature/1";

/// Whether a manifest's name stays within the folder.
bool safe(const std::string& name) {
    if (name.empty() || name.find_first_of(std::string("\\:\0", 3)) != std::string::npos)
        return false;
    for (std::size_t first = 0; first <= name.size();) {
        const std::size_t end = std::min(name.find('/', first), name.size());
        const std::string part = name.substr(first, end - first);
        if (part.empty() || part == "." || part == "..") return false;
        first = end + 1;
    }
    return true;
}

void check_signature(const std::string& folder, const std::string& manifest,
                     const std::string& trusted) {
    const json record = json::parse(read_file(folder + "/bundle.sig"));
    if (record.at("format") != signature_format || record.at("algorithm") != "ed25519")
        throw BadInput(folder + "/bundle.sig is of a format that this program does not read");
    const std::string text = record.at("signature");
    std::vector<unsigned char> signature(text.size());
    const int decoded = EVP_DecodeBlock(
        signature.data(), reinterpret_cast<const unsigned char*>(text.data()),
        static_cast<int>(text.size()));
    if (decoded != 66) throw BadInput(folder + "/bundle.sig holds no signature");  // 64 and padding
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(
        std::fopen(trusted.c_str(), "rb"), [](std::FILE* open) { return open ? fclose(open) : 0; });
    if (!file) throw BadInput(trusted + " cannot be read");
    while (EVP_PKEY* key = PEM_read_PUBKEY(file.get(), nullptr, nullptr, nullptr)) {
        EVP_MD_CTX* context = EVP_MD_CTX_new();
        const bool holds =
            EVP_DigestVerifyInit(context, nullptr, nullptr, nullptr, key) == 1
            && EVP_DigestVerify(context, signature.data(), 64,
                                reinterpret_cast<const unsigned char*>(manifest.data()),
                                manifest.size()) == 1;
        EVP_MD_CTX_free(context);
        EVP_PKEY_free(key);
        if (holds) return;
    }
    throw BadInput("no key of " + trusted + " signed " + folder + "/bundle.json as it is now");
}

}  // namespace

std::string sha256_of(const std::string& content) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    EVP_Digest(content.data(), content.size(), digest, &size, EVP_sha256(), nullptr);
    std::string text;
    for (unsigned int i = 0; i < size; ++i) {
        char hex[3];
        std::snprintf(hex, sizeof hex, "%02x", digest[i]);
        text += hex;
    }
    return text;
}

double Threshold::p_value(double score) const {
    const auto below = std::lower_bound(scores.begin(), scores.end(), score) - scores.begin();
    return (1.0 + (below ? above[below - 1] : good_parts)) / (good_parts + 1.0);
}

Bundle::Bundle(const std::string& folder, const std::string& trusted)
    : folder_(folder), signed_(!trusted.empty()) {
    const std::string content = read_file(folder + "/bundle.json");
    if (signed_) check_signature(folder, content, trusted);
    manifest_ = json::parse(content);
    if (manifest_.at("format") != format)
        throw BadInput(folder + " is a bundle of another format than " + format);
    for (const auto& [name, record] : manifest_.at("files").items()) checked(name);
}

int Bundle::side(int axis) const {
    const int cells = manifest_.at("input_side").get<int>() / 16;
    const int tiles = manifest_.value("tiles", std::vector<int>{1, 1}).at(axis);
    const int overlap = manifest_.value("tile_overlap", 0);
    if (cells < 1 || cells > 64 || tiles < 1 || tiles > 8 || overlap < 0 || overlap >= cells)
        throw BadInput("the manifest of " + folder_ + " says no size that a frame can have");
    return 16 * (cells + (tiles - 1) * (cells - overlap));
}

std::string Bundle::checked(const std::string& name) const {
    const json& files = manifest_.at("files");
    if (!safe(name) || !files.contains(name))
        throw BadInput("the manifest of " + folder_ + " names '" + name + "', which is no file of it");
    const std::string content = read_file(folder_ + "/" + name);
    if (sha256_of(content) != files.at(name).at("sha256"))
        throw BadInput(folder_ + "/" + name + " is not the file that was exported (SHA-256)");
    return content;
}

std::string Bundle::graph_name(const std::string& precision) const {
    const json& models = manifest_.at("models");
    if (!models.contains(precision))
        throw BadInput("the bundle " + folder_ + " has no " + precision + " model");
    return models.at(precision);
}

std::string Bundle::graph(const std::string& precision) const {
    return checked(graph_name(precision));
}

std::string Bundle::graph_sha256(const std::string& precision) const {
    return manifest_.at("files").at(graph_name(precision)).at("sha256");
}

bool Bundle::names(const std::string& name, const std::string& sha256) const {
    const json& files = manifest_.at("files");
    return files.contains(name) && files.at(name).at("sha256") == sha256;
}

const Threshold* Bundle::threshold(const std::string& precision, const std::string& category) {
    const json thresholds = manifest_.value("thresholds", json::object());
    const json of_precision = thresholds.value(precision, json::object());
    if (!of_precision.contains(category)) return nullptr;
    const json& record = of_precision.at(category);
    const json& scores = record.at("calibration_scores");
    found_ = {record.at("value"), scores.at("count"), scores.at("scores"), scores.at("above")};
    if (found_.scores.size() != found_.above.size())
        throw BadInput("the calibration scores of " + folder_ + " are no table");
    return &found_;
}
