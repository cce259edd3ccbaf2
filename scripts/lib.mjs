import { spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))

const packagedNode = path.join(root, 'node_modules/.bin/node')
/** The Node that the lock file fixes. */
export const pinnedNode = existsSync(packagedNode) ? packagedNode : process.execPath
/** The Node that runs npm: whatever the machine has. */
export const systemNode = process.env.npm_node_execpath ?? process.execPath

/**
 * Runs a program to its end; its output is collected, and `onLine` sees it as it comes.
 * A program that says nothing for `patience` milliseconds is ended.
 */
export function run(command, args, { cwd = root, env = process.env, onLine, patience } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
    const silence = patience && setTimeout(() => child.kill(), patience)
    let output = ''
    let partial = ''
    const take = (text) => {
      silence?.refresh()
      output += text
      if (!onLine) return
      const lines = (partial + text).split('\n')
      partial = lines.pop()
      lines.forEach(onLine)
    }
    child.stdout.setEncoding('utf8').on('data', take)
    child.stderr.setEncoding('utf8').on('data', take)
    child.on('error', (error) => resolve({ code: 1, output: `${command}: ${error.message}` }))
    child.on('close', (code, signal) => {
      clearTimeout(silence)
      if (partial) onLine(partial)
      resolve({ code: code ?? 1, output: signal ? `${output}\nended by ${signal}` : output })
    })
  })
}

/** Runs the JavaScript program `file` of an installed package, such as `typescript/bin/tsc`. */
export function runTool(file, args, options) {
  return run(process.execPath, [path.join(root, 'node_modules', file), ...args], options)
}

export function runNpm(args, options) {
  const cli = process.env.npm_execpath ?? ''
  return cli.endsWith('npm-cli.js') ? run(systemNode, [cli, ...args], options) : run('npm', args, options)
}

/** What a finished program has to say, as a list of problems: none if it succeeded. */
export function problemsOf({ code, output }, ...advice) {
  return code === 0 ? [] : [output.trim() || `exit code ${code}`, ...advice]
}

/** The files below `folder` whose names end in `suffix`, as paths relative to `base`, sorted. None if there is no folder. */
export function filesBelow(folder, suffix, base = root) {
  const absolute = path.join(base, folder)
  if (!existsSync(absolute)) return []
  return readdirSync(absolute, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(suffix))
    .map((entry) => path.relative(base, path.join(entry.parentPath, entry.name)).replaceAll(path.sep, '/'))
    .sort()
}
