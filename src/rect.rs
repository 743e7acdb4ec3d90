//! Axis-parallel rectangles in pixels: boxes around what a picture shows.

/// A rectangle from its left and top edge up to its right and bottom edge, in pixels from the picture's corner. Pixel 0
/// is from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rect {
    /// Distance of the left edge.
    pub left: f32,
    /// Distance of the upper edge.
    pub top: f32,
    /// Distance of the right edge.
    pub right: f32,
    /// Distance of the lower edge.
    pub bottom: f32,
}

impl Rect {
    /// A rectangle of these edges.
    pub fn new(left: f32, top: f32, right: f32, bottom: f32) -> Self {
        Self { left, top, right, bottom }
    }

    /// Width times height; 0 if an edge lies beyond its opposite, or is NaN.
    pub fn area(&self) -> f32 {
        (self.right - self.left).max(0.0) * (self.bottom - self.top).max(0.0)
    }

    /// The part that lies in another one.
    pub fn intersection(&self, other: &Self) -> Self {
        Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        }
    }

    /// Intersection over union (Jaccard index), from 0 to 1; 0 for two of no area.
    ///
    /// ```
    /// use swath::Rect;
    /// let a = Rect::new(0.0, 0.0, 2.0, 2.0);
    /// assert_eq!(a.iou(&Rect::new(1.0, 0.0, 3.0, 2.0)), 1.0 / 3.0);
    /// assert_eq!(a.iou(&Rect::new(5.0, 0.0, 6.0, 2.0)), 0.0);
    /// ```
    pub fn iou(&self, other: &Self) -> f32 {
        let shared = self.intersection(other).area();
        let union = self.area() + other.area() - shared;
        if union > 0.0 { shared / union } else { 0.0 }
    }
}
