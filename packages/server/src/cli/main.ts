import { packageVersion } from '../package.ts'
import { plain } from '../terminal.ts'
import { type Command, table } from './command.ts'
import { Failure, nearest, quoted, UsageError } from './errors.ts'
import { exportLog } from './export.ts'
import { importLog } from './import.ts'
import { inspect } from './inspect.ts'
import { publish } from './publish.ts'
import { serve } from './serve.ts'
import { status } from './status.ts'
import { tail } from './tail.ts'
import { token } from './token.ts'

const commands: ReadonlyMap<string, Command> = new Map(
  [serve, publish, tail, status, inspect, exportLog, importLog, token].map((command) => [command.name, command]),
)

/** Runs the command line and resolves with the exit code: 0 fine, 1 failed, 2 wrong usage. */
export async function main(args: readonly string[]): Promise<number> {
  const [first = 'help', ...rest] = args
  // The server goes on without its output; tail and export know what to do about it.
  if (!['serve', 'tail', 'export'].includes(first)) process.stdout.on('error', endWithoutOutput)
  try {
    if (first === '--version' || first === '-v') return print(`${packageVersion()}\n`)
    if (first === 'help' || first === '--help' || first === '-h') return print(helpFor(rest[0]))
    return await commandNamed(first).run(rest)
  } catch (error) {
    return complain(error, commands.has(first) ? `spillway ${first}` : 'spillway')
  }
}

/** Whoever reads the output may stop before it ends (`| head`); anything else that keeps it from being written is a failure. */
function endWithoutOutput(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') process.exit(0)
  process.stderr.write(`spillway: the output could not be written: ${error.message}\n`)
  process.exit(1)
}

function print(text: string): number {
  process.stdout.write(text)
  return 0
}

function complain(error: unknown, program: string): number {
  if (error instanceof UsageError) {
    process.stderr.write(`${program}: ${plain(error.message)}\nRun \`${program} --help\` to see how it is used.\n`)
    return 2
  }
  if (error instanceof Failure) process.stderr.write(`${program}: ${plain(error.message)}\n`)
  else process.stderr.write(`${program}: ${error instanceof Error ? error.stack : String(error)}\n`)
  return 1
}

function commandNamed(name: string): Command {
  const command = commands.get(name)
  if (command) return command
  if (name.startsWith('-')) {
    const near = nearest(name.replace(/^-+/, ''), ['help', 'version'])
    throw new UsageError(
      `Unknown option ${name}.${near ? ` Did you mean --${near}?` : ' Options come after the command.'}`,
    )
  }
  const near = nearest(name, [...commands.keys(), 'help'])
  throw new UsageError(`Unknown command ${quoted(name)}.${near ? ` Did you mean ${near}?` : ''}`)
}

function helpFor(name: string | undefined): string {
  return name === undefined ? overview() : commandNamed(name).help()
}

function overview(): string {
  return `${[
    'spillway: resumable event streams. No event is lost in silence.',
    '',
    'Usage:',
    '  spillway <command> [options]',
    '',
    'Commands:',
    ...table([
      ...[...commands.values()].map(({ name, summary }) => [name, summary] as const),
      ['help', 'Show this help, or that of a command.'],
    ]),
    '',
    'Options:',
    ...table([
      ['-h, --help', 'Show this help; after a command, its own.'],
      ['-v, --version', 'Show the version.'],
    ]),
    '',
    'Environment:',
    ...table([
      ['SPILLWAY_URL', 'The server that publish, tail and status talk to. Default: http://127.0.0.1:4747'],
      ['SPILLWAY_TOKEN', 'The token they show it.'],
      ['NO_COLOR', 'If set, nothing is coloured.'],
    ]),
    '',
    'Exit codes: 0 fine, 1 failed, 2 wrong usage.',
    '',
    'Examples:',
    '  spillway serve --source host',
    '  spillway tail --topic Host --topic Process:4711 --from earliest',
    '  spillway publish --topic Order --type OrderPlaced --key A1 --payload \'{"total":12}\'',
  ].join('\n')}\n`
}
