#!/usr/bin/env node
// Not compiled: npm links it before anything is, and a Node that is too old for the rest must be able to say so.
const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 22 || (major === 22 && minor < 13)) {
  console.error(`spillway needs Node 22.13 or newer, and this is Node ${process.versions.node}.`)
  process.exit(1)
}
await import('../dist/bin.js')
