//! The router on real packets, and its compiler against a plain model.
