import { registerHooks } from 'node:module'

// For `node --import`: servers of tests serve from two threads. What they promise must not depend on that.
process.env.SPILLWAY_TEST_THREADS = '2'
const server = new URL('../../src/server.js', import.meta.url).href
const wrapped = new URL('threaded-server.js', import.meta.url).href
registerHooks({
  resolve(specifier, context, next) {
    const found = next(specifier, context)
    const isOurs = context.parentURL !== wrapped && found.url === server
    return isOurs ? { ...found, url: wrapped } : found
  },
})
