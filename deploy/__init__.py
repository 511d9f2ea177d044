"""Setting wio up: images, units, and the real storage servers that the demo, the tests and the benchmarks run against."""
