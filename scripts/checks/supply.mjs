import { readFileSync } from 'node:fs'
import path from 'node:path'
import { root } from '../lib.mjs'

const readLock = () => JSON.parse(readFileSync(path.join(root, 'package-lock.json'), 'utf8'))

/**
 * What is installed is what was looked at: every package has its digest, all come from one place, and none that a user of
 * the published packages gets runs anything when it is installed.
 */
export function checkSupply(lock = readLock()) {
  const packages = Object.entries(lock.packages).filter(([where, { link }]) => where.includes('node_modules/') && !link)
  const hosts = new Set(packages.map(([, { resolved }]) => hostOf(resolved)))
  return [
    ...packages
      .filter(([, { integrity }]) => !/^sha512-/.test(integrity ?? ''))
      .map(([where]) => `${where} has no SHA-512 in package-lock.json.`),
    ...(hosts.size > 1
      ? [`package-lock.json names ${hosts.size} places that packages come from; one is expected.`]
      : []),
    ...packages
      .filter(([, { dev, devOptional, hasInstallScript }]) => !dev && !devOptional && hasInstallScript)
      .filter(([where]) => isOfUsers(lock, where))
      .map(([where]) => `${where} runs a script when it is installed, at users of the packages.`),
  ]
}

function hostOf(resolved) {
  return URL.canParse(resolved) ? new URL(resolved).host : resolved
}

/** Whether `where` comes along with one of the published packages. */
function isOfUsers(lock, where) {
  const published = Object.entries(lock.packages).filter(([folder]) => folder.startsWith('packages/'))
  const found = new Set()
  const follow = ({ dependencies = {} }) => {
    for (const name of Object.keys(dependencies)) {
      const at = `node_modules/${name}`
      if (found.has(at)) continue
      found.add(at)
      if (lock.packages[at]) follow(lock.packages[at])
    }
  }
  for (const [, manifest] of published) follow(manifest)
  return found.has(where)
}
