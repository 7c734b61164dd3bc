//! The router's compiler against a plain model, and the router on real packets.

mod devices;
mod fixture;
mod model;
mod packets;
