//! The running sensor.
