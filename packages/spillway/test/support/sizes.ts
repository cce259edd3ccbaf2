/**
 * Faults of a minute's length are injected on the Node that the repository pins. On the oldest that is supported, which
 * runs the same tests once more, a few seconds of each must do.
 */
export const isFullSize: boolean = Number.parseInt(process.versions.node, 10) >= 22
