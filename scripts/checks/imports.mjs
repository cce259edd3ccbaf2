import { readFileSync } from 'node:fs'
import path from 'node:path'
import { filesBelow, root as repository } from '../lib.mjs'

/** The folders of the library, and from which others each may import. Itself is always allowed. */
const layers = {
  core: [],
  wire: ['core'],
  http: ['core', 'wire'],
  client: ['core', 'wire'],
  react: ['core', 'client'],
  log: ['core'],
  shared: ['core', 'wire'],
  testing: ['core', 'wire', 'log', 'http'],
}
const nodeAllowed = /^(http\/node\.ts|(log|shared|testing)\/)/
/** Peers that whoever uses a folder has anyway. */
const peers = [
  ['react/', 'react'],
  ['log/jetstream', '@nats-io/jetstream'],
  ['log/jetstream', '@nats-io/nats-core'],
]
const mounts = /^http\/(node|fetch)\.ts$/

/** Import lines that point the wrong way, one sentence each. */
export function checkImports(root = repository) {
  return [
    ...inFiles(root, 'packages/spillway/src', libraryProblem),
    ...inFiles(root, 'packages/server/src', serverProblem(publishedEntries(root))),
    ...inFiles(root, 'bench', outsiderProblem),
    ...inFiles(root, 'examples', outsiderProblem),
    ...awaitsIn(root, 'packages/spillway/src/wire'),
  ]
}

function inFiles(root, folder, problemOf) {
  const problems = []
  for (const file of sourcesBelow(root, folder)) {
    const from = path.posix.relative(folder, file)
    for (const specifier of importsOf(readFileSync(path.join(root, file), 'utf8'))) {
      const problem = relativeProblem(from, specifier) ?? problemOf(from, specifier)
      if (problem) problems.push(`${file} imports '${specifier}': ${problem}`)
    }
  }
  return problems
}

function sourcesBelow(root, folder) {
  return filesBelow(folder, '.ts', root).filter((file) => !/\/(node_modules|dist|build)\//.test(file))
}

// Formatted sources start their import lines in the first column; comments and strings do not.
const staticImport = /^(?:import|export)\s+(?:type\s+)?[\w$*\s{},]+?\s*from\s*'([^']+)'/gm
const sideEffectImport = /^import\s*'([^']+)'/gm
const dynamicImport = /^(?!\s*(?:\*|\/\/)).*?\bimport\(\s*'([^']+)'/gm

/** What a TypeScript source imports, statically, dynamically or as a type. */
export function importsOf(source) {
  return [staticImport, sideEffectImport, dynamicImport].flatMap((pattern) =>
    [...source.matchAll(pattern)].map((match) => match[1]),
  )
}

function target(from, specifier) {
  return path.posix.join(path.posix.dirname(from), specifier)
}

function relativeProblem(from, specifier) {
  if (!specifier.startsWith('.')) return
  if (target(from, specifier).startsWith('../')) return 'it leaves its own sources; import the package by its name.'
  if (!specifier.endsWith('.ts')) return 'relative imports end in .ts.'
}

function libraryProblem(from, specifier) {
  if (specifier.startsWith('node:')) {
    return nodeAllowed.test(from) ? undefined : 'only http/node.ts, log/, shared/ and testing/ may use Node.'
  }
  if (peers.some(([folder, name]) => specifier === name && from.startsWith(folder))) return
  if (!specifier.startsWith('.')) return 'the library has no dependencies.'
  const to = target(from, specifier)
  if (to === 'index.ts') return 'nothing in the library imports its own entry point.'
  if (mounts.test(from) && to === 'core/buffer.ts') return 'a mount never sees a buffer.'
  const [own, other] = [layerOf(from), layerOf(to)]
  if (own === undefined || own === other) return
  if (other === undefined) return `${own} may import only from folders.`
  const allowed = layers[own]
  if (!allowed) return `${own}/ has no place in the order of layers; give it one in scripts/checks/imports.mjs.`
  if (!allowed.includes(other)) return `${own} may import from ${allowed.join(', ') || 'nothing outside itself'} only.`
}

const layerOf = (file) => (file.includes('/') ? file.slice(0, file.indexOf('/')) : undefined)

function publishedEntries(root) {
  const { name, exports } = JSON.parse(readFileSync(path.join(root, 'packages/spillway/package.json'), 'utf8'))
  return Object.keys(exports).map((entry) => path.posix.join(name, entry))
}

function serverProblem(entries) {
  return (_from, specifier) => {
    if (/^spillway(\/|$)/.test(specifier) && !entries.includes(specifier)) {
      return `the library publishes only ${entries.join(', ')}.`
    }
  }
}

function outsiderProblem(_from, specifier) {
  if (specifier.startsWith('@spillway/server')) return 'nobody imports the server; start it as a program.'
}

function awaitsIn(root, folder) {
  return sourcesBelow(root, folder)
    .filter((file) => /^(?!\s*(?:\*|\/\*|\/\/)).*\bawait\b/m.test(readFileSync(path.join(root, file), 'utf8')))
    .map((file) => `${file} awaits: wire only turns bytes into batches and back.`)
}
