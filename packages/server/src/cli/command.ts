import { parseArgs } from 'node:util'
import { nearest, quoted, UsageError } from './errors.ts'

/** An option as its command declares it; its help is made of the same words. */
export interface Option {
  readonly type: 'string' | 'boolean'
  /** May be given several times. */
  readonly multiple?: true
  readonly short?: string
  /** What stands for the value in the help. */
  readonly value?: string
  readonly help: string
}

export type Options = Readonly<Record<string, Option>>

/** The options that were given, by name. */
export type Values<O extends Options> = {
  readonly [Name in keyof O]: O[Name] extends { type: 'boolean' }
    ? boolean
    : O[Name] extends { multiple: true }
      ? readonly string[]
      : string | undefined
}

/** One command of the command line. `run` resolves with the exit code. */
export interface Command {
  readonly name: string
  readonly summary: string
  help(): string
  run(args: readonly string[]): Promise<number>
}

/** What a command is made of. */
export interface CommandParts<O extends Options> {
  readonly name: string
  /** What it does, in one line. */
  readonly summary: string
  readonly usage: readonly string[]
  readonly options: O
  /** Paragraphs below the options. */
  readonly notes?: readonly string[]
  readonly examples: readonly string[]
  /** What the help calls the one argument that is no option, which is then required. */
  readonly operand?: string
  /** Whether that may be left out; it is `''` then. */
  readonly isOptional?: boolean
  run(values: Values<O>, operand: string): Promise<number>
}

const helpOption = { type: 'boolean', short: 'h', help: 'Show this help.' } as const

/** A command whose options are checked before it runs. */
export function defineCommand<const O extends Options>(parts: CommandParts<O>): Command {
  const options: Options = { ...parts.options, help: helpOption }
  const help = () => commandHelp(parts, options)
  return {
    name: parts.name,
    summary: parts.summary,
    help,
    async run(args) {
      const { values, operands } = parseArguments(args, options)
      if (values.help) {
        process.stdout.write(help())
        return 0
      }
      const most = parts.operand === undefined ? 0 : 1
      if (operands.length > most) throw new UsageError(`Unexpected argument ${quoted(operands[most] as string)}.`)
      const [operand = ''] = operands
      if (most === 1 && operand === '' && !parts.isOptional) throw new UsageError(`${parts.operand} is required.`)
      return parts.run(values as Values<O>, operand)
    },
  }
}

/** Throws `UsageError` for whatever `options` does not name. */
function parseArguments(
  args: readonly string[],
  options: Options,
): { readonly values: Values<Options>; readonly operands: readonly string[] } {
  const operands: string[] = []
  const values: Record<string, boolean | string | string[] | undefined> = {}
  for (const [name, { type, multiple }] of Object.entries(options)) {
    values[name] = type === 'boolean' ? false : multiple ? [] : undefined
  }
  const { tokens } = parseArgs({ args: [...args], options, strict: false, allowPositionals: true, tokens: true })
  for (const token of tokens) {
    if (token.kind === 'positional') operands.push(token.value)
    if (token.kind !== 'option') continue
    const option = Object.hasOwn(options, token.name) ? options[token.name] : undefined
    if (!option) throw unknownOption(token.rawName, options)
    const value = option.type === 'boolean' ? flag(token) : text(token)
    if (option.multiple) (values[token.name] as string[]).push(value as string)
    else if (values[token.name]) throw new UsageError(`${token.rawName} may be given once.`)
    else values[token.name] = value
  }
  return { values: values as Values<Options>, operands }
}

interface OptionToken {
  readonly rawName: string
  readonly value: string | undefined
  readonly inlineValue: boolean | undefined
}

function flag({ rawName, value }: OptionToken): true {
  if (value !== undefined) throw new UsageError(`${rawName} takes no value, got ${quoted(value)}.`)
  return true
}

function text({ rawName, value, inlineValue }: OptionToken): string {
  if (value === undefined) throw new UsageError(`${rawName} needs a value.`)
  if (!inlineValue && value.startsWith('--'))
    throw new UsageError(`${rawName} needs a value, got the option ${value}. If it is the value: ${rawName}=${value}`)
  return value
}

function unknownOption(name: string, options: Options): UsageError {
  const near = nearest(name.replace(/^-+/, ''), Object.keys(options))
  return new UsageError(`Unknown option ${name}.${near ? ` Did you mean --${near}?` : ''}`)
}

function commandHelp({ summary, usage, notes = [], examples }: CommandParts<Options>, options: Options): string {
  const rows = Object.entries(options).map(([name, { short, value, help }]): [string, string] => {
    const flag = `${short ? `-${short}, ` : ''}--${name}`
    return [value ? `${flag} ${value}` : flag, help]
  })
  return `${[
    summary,
    '',
    'Usage:',
    ...usage.map((line) => `  ${line}`),
    '',
    'Options:',
    ...table(rows),
    ...notes.flatMap((note) => ['', ...wrap(note, 96)]),
    '',
    'Examples:',
    ...examples.map((line) => `  ${line}`),
  ].join('\n')}\n`
}

/** Rows of a name and what it means, in two columns. */
export function table(rows: readonly (readonly [name: string, meaning: string])[]): string[] {
  const width = Math.max(...rows.map(([name]) => name.length)) + 2
  return rows.flatMap(([name, meaning]) =>
    wrap(meaning, 94 - width).map((line, i) => `  ${(i === 0 ? name : '').padEnd(width)}${line}`),
  )
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line]
}
