//! Embedded speech as a whole: with the helper process, the models and human voices that
//! `deploy/setup.sh test` installs.

#![forbid(unsafe_code)]

mod human_voices;
mod life;
mod scene;
