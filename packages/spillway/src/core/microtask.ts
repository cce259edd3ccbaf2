/** Runs `task` once what runs now has ended. `queueMicrotask` is no part of the language, and this is compiled for any runtime. */
export function microtask(task: () => void): void {
  Promise.resolve().then(task)
}
