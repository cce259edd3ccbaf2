import { registerHooks } from 'node:module'

// For `node --import`: brokers without a log of their own get one that another thread owns. Tests of what is served then show
// the same of a thread that only serves.
registerHooks({
  resolve(specifier, context, next) {
    const isBroker = context.parentURL?.endsWith('/src/core/broker.js') === true
    if (!isBroker || specifier !== './memory-log.js') return next(specifier, context)
    return { url: new URL('threaded-log.js', import.meta.url).href, shortCircuit: true }
  },
})
