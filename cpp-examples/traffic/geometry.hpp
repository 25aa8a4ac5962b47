// Plane geometry: points, evenly sampled polylines with a smooth direction, and oriented boxes. Metres and radians.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace traffic {

constexpr double pi = 3.14159265358979323846;

struct Point {
    double x = 0.0;
    double y = 0.0;
};

inline Point operator+(Point a, Point b) { return {a.x + b.x, a.y + b.y}; }
inline Point operator-(Point a, Point b) { return {a.x - b.x, a.y - b.y}; }
inline Point operator*(double k, Point a) { return {k * a.x, k * a.y}; }
inline double dot(Point a, Point b) { return a.x * b.x + a.y * b.y; }
inline double cross(Point a, Point b) { return a.x * b.y - a.y * b.x; }
inline double norm(Point a) { return std::sqrt(a.x * a.x + a.y * a.y); }
inline double distance(Point a, Point b) { return norm(a - b); }
inline Point unit(double angle) { return {std::cos(angle), std::sin(angle)}; }
inline Point left_of(Point direction) { return {-direction.y, direction.x}; }
inline double angle_of(Point direction) { return std::atan2(direction.y, direction.x); }
Point normalized(Point a);

// To (-pi, pi].
double wrap_angle(double angle);

// A curve sampled about every metre, measured by its arc length. Positions before the start or past the end lie on the
// straight continuation.
class Polyline {
public:
    Polyline() = default;
    // Resamples the given points (two or more, not all equal) evenly.
    explicit Polyline(const std::vector<Point>& raw);
    // The same with known directions at both ends (unit vectors).
    Polyline(const std::vector<Point>& raw, Point first_direction, Point last_direction);

    double length() const { return length_; }
    const std::vector<Point>& points() const { return points_; }
    Point at(double s) const;
    // Unit tangent, interpolated between the vertices, so that headings change smoothly.
    Point direction(double s) const;
    // Largest curvature, 1/m.
    double max_curvature() const;
    // Vertices moved sideways, positive to the left.
    std::vector<Point> offset(double distance) const;
    // The curve at a distance, positive to the left.
    Polyline parallel(double distance) const;
    Polyline reversed() const;
    // Arc length of the nearest point.
    double project(Point p) const;

private:
    std::vector<Point> points_;
    std::vector<Point> tangents_;
    double spacing_ = 1.0;
    double length_ = 0.0;
};

// Cubic Bezier curve from `a` leaving along `from` to `b` arriving along `to` (unit vectors). `reach` scales the handles:
// 0.39 draws a near circle for a right angle.
Polyline smooth_curve(Point a, Point from, Point b, Point to, double reach);

struct Box {
    Point center;
    double heading = 0.0;
    double length = 0.0;
    double width = 0.0;
};

// Four corners, counter-clockwise from the front left.
std::vector<Point> corners(const Box& box);
// Separating axes.
bool overlap(const Box& a, const Box& b);

}  // namespace traffic
