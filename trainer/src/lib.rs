//! marquee-trainer
