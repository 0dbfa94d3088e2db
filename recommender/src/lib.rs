//! marquee-recommender
