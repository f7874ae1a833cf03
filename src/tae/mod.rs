//! tae
