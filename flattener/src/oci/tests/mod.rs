//! Images made in code, carried by skopeo into every container there is, and registries:
//! the real one and one that misbehaves on purpose. Needs skopeo and docker-registry.

mod fixture;
mod local;
mod registry;
mod stub;
mod stubbed;
