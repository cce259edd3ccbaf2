import { existsSync, readFileSync, statSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { root as repository, run } from '../lib.mjs'

// Joined here, or this file would be its own first finding.
const hosts = [
  ['registry', 'npmjs', 'org'],
  ['registry', 'yarnpkg', 'com'],
  ['npm', 'pkg', 'github', 'com'],
  ['deb', 'debian', 'org'],
  ['files', 'pythonhosted', 'org'],
  ['proxy', 'golang', 'org'],
].map((labels) => labels.join('.'))

const largest = 16 * 1024 * 1024

/** Files, tracked or about to be, that only make sense on the machine they were written on. */
export async function checkRepository(root = repository, home = os.homedir()) {
  const { code, output } = await run('git', ['ls-files', '-co', '--exclude-standard', '-z'], { cwd: root })
  if (code !== 0) return [`git cannot list the files: ${output.trim()}`]
  const files = output.split('\0').filter((file) => file && existsSync(path.join(root, file)))
  const localPaths = [root, home].filter((folder) => folder.length > 1)
  return [...files.flatMap((file) => inFile(root, file, localPaths)), ...inLockFile(root)]
}

function inFile(root, file, localPaths) {
  const { size } = statSync(path.join(root, file))
  if (size > largest) return [`${file} has ${size} bytes; more than ${largest} do not belong in the repository.`]
  const text = readFileSync(path.join(root, file), 'latin1')
  if (text.includes('\0')) return []
  const problems = []
  for (const host of hosts) if (text.includes(host)) problems.push(`${file} names the package registry ${host}.`)
  for (const folder of localPaths) {
    if (new RegExp(`(?<![\\w.])${literal(folder)}(?![\\w-])`).test(text)) {
      problems.push(`${file} names ${folder}, a path of this machine.`)
    }
  }
  return problems
}

const literal = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')

function inLockFile(root) {
  const file = path.join(root, 'package-lock.json')
  if (!existsSync(file)) return ['package-lock.json is missing.']
  const { packages } = JSON.parse(readFileSync(file, 'utf8'))
  return Object.entries(packages)
    .filter(([, { resolved = '' }]) => /^[a-z+]+:/.test(resolved))
    .map(
      ([name]) =>
        `package-lock.json says where ${name} was downloaded; npm install with this repository's .npmrc omits it.`,
    )
}
