//! marquee-ingestor
