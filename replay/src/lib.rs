//! marquee-replay
