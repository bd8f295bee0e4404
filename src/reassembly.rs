//! In-order byte streams out of TCP segments, bounded in every direction.
