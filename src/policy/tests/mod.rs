//! The stories of policy, told through the public functions only.

mod admission;
mod explaining;
mod files;
mod flipping;
mod loading;
mod properties;
mod routing;
mod world;
mod zones;
