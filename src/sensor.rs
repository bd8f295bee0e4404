//! The running sensor.

pub mod rss;
