//! The stories of policy, told through the public functions only.

mod admission;
mod browsers;
mod explaining;
mod files;
mod flipping;
mod loading;
mod properties;
mod routing;
mod world;
mod zones;
