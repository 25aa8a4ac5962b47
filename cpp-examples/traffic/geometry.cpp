#include "geometry.hpp"

#include <algorithm>
#include <array>
#include <limits>

namespace traffic {

Point normalized(Point a) {
    const double n = norm(a);
    return n > 0.0 ? (1.0 / n) * a : Point{1.0, 0.0};
}

double wrap_angle(double angle) {
    const double wrapped = std::remainder(angle, 2.0 * pi);
    return wrapped <= -pi ? wrapped + 2.0 * pi : wrapped;
}

Polyline::Polyline(const std::vector<Point>& raw) {
    std::vector<double> reached(raw.size(), 0.0);
    for (std::size_t i = 1; i < raw.size(); ++i) {
        reached[i] = reached[i - 1] + distance(raw[i - 1], raw[i]);
    }
    const double total = reached.back();
    const auto segments = static_cast<std::size_t>(std::max(1.0, std::round(total)));
    std::size_t k = 0;
    for (std::size_t i = 0; i <= segments; ++i) {
        const double s = total * static_cast<double>(i) / static_cast<double>(segments);
        while (k + 2 < raw.size() && reached[k + 1] < s) {
            ++k;
        }
        const double span = reached[k + 1] - reached[k];
        const double t = span > 0.0 ? (s - reached[k]) / span : 0.0;
        points_.push_back(raw[k] + t * (raw[k + 1] - raw[k]));
    }
    points_.back() = raw.back();
    length_ = 0.0;
    for (std::size_t i = 1; i < points_.size(); ++i) {
        length_ += distance(points_[i - 1], points_[i]);
    }
    spacing_ = length_ / static_cast<double>(segments);
    for (std::size_t i = 0; i < points_.size(); ++i) {
        const Point before = points_[i == 0 ? 0 : i - 1];
        const Point after = points_[std::min(i + 1, points_.size() - 1)];
        tangents_.push_back(normalized(after - before));
    }
}

Polyline::Polyline(const std::vector<Point>& raw, Point first_direction, Point last_direction) : Polyline(raw) {
    tangents_.front() = first_direction;
    tangents_.back() = last_direction;
}

Point Polyline::at(double s) const {
    if (s <= 0.0) {
        return points_.front() + s * tangents_.front();
    }
    if (s >= length_) {
        return points_.back() + (s - length_) * tangents_.back();
    }
    const double place = s / spacing_;
    const auto k = std::min(static_cast<std::size_t>(place), points_.size() - 2);
    const double t = place - static_cast<double>(k);
    return points_[k] + t * (points_[k + 1] - points_[k]);
}

Point Polyline::direction(double s) const {
    if (s <= 0.0) {
        return tangents_.front();
    }
    if (s >= length_) {
        return tangents_.back();
    }
    const double place = s / spacing_;
    const auto k = std::min(static_cast<std::size_t>(place), points_.size() - 2);
    const double t = place - static_cast<double>(k);
    return normalized((1.0 - t) * tangents_[k] + t * tangents_[k + 1]);
}

double Polyline::max_curvature() const {
    double largest = 0.0;
    for (std::size_t i = 1; i < tangents_.size(); ++i) {
        largest = std::max(largest, std::fabs(cross(tangents_[i - 1], tangents_[i])) / spacing_);
    }
    return largest;
}

std::vector<Point> Polyline::offset(double sideways) const {
    std::vector<Point> moved;
    moved.reserve(points_.size());
    for (std::size_t i = 0; i < points_.size(); ++i) {
        moved.push_back(points_[i] + sideways * left_of(tangents_[i]));
    }
    return moved;
}

Polyline Polyline::parallel(double sideways) const {
    return Polyline(offset(sideways), tangents_.front(), tangents_.back());
}

Polyline Polyline::reversed() const {
    return Polyline(std::vector<Point>(points_.rbegin(), points_.rend()), -1.0 * tangents_.back(), -1.0 * tangents_.front());
}

double Polyline::project(Point p) const {
    double best = std::numeric_limits<double>::max();
    double place = 0.0;
    for (std::size_t i = 0; i + 1 < points_.size(); ++i) {
        const Point along = points_[i + 1] - points_[i];
        const double t = std::clamp(dot(p - points_[i], along) / std::max(dot(along, along), 1e-12), 0.0, 1.0);
        const Point away = p - points_[i] - t * along;
        const double far = dot(away, away);
        if (far < best) {
            best = far;
            place = (static_cast<double>(i) + t) * spacing_;
        }
    }
    return place;
}

Polyline smooth_curve(Point a, Point from, Point b, Point to, double reach) {
    const double handle = reach * distance(a, b);
    const Point c1 = a + handle * from;
    const Point c2 = b - handle * to;
    std::vector<Point> raw;
    const auto count = static_cast<int>(std::max(24.0, 3.0 * distance(a, b)));
    for (int i = 0; i <= count; ++i) {
        const double t = static_cast<double>(i) / count;
        const double u = 1.0 - t;
        raw.push_back(u * u * u * a + 3.0 * u * u * t * c1 + 3.0 * u * t * t * c2 + t * t * t * b);
    }
    return Polyline(raw, from, to);
}

std::vector<Point> corners(const Box& box) {
    const Point forward = (box.length / 2.0) * unit(box.heading);
    const Point left = (box.width / 2.0) * left_of(unit(box.heading));
    return {box.center + forward + left, box.center - forward + left, box.center - forward - left,
            box.center + forward - left};
}

bool overlap(const Box& a, const Box& b) {
    const Point between = b.center - a.center;
    const Point axes_a[2] = {unit(a.heading), left_of(unit(a.heading))};
    const Point axes_b[2] = {unit(b.heading), left_of(unit(b.heading))};
    const auto reach = [](const Box& box, const Point (&axes)[2], Point axis) {
        return box.length / 2.0 * std::fabs(dot(axes[0], axis)) + box.width / 2.0 * std::fabs(dot(axes[1], axis));
    };
    for (const Point axis : {axes_a[0], axes_a[1], axes_b[0], axes_b[1]}) {
        if (std::fabs(dot(between, axis)) > reach(a, axes_a, axis) + reach(b, axes_b, axis)) {
            return false;
        }
    }
    return true;
}

}  // namespace traffic
