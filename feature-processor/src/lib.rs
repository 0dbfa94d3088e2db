//! marquee-feature-processor
