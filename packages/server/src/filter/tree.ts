import type { parse } from '@bufbuild/cel'

/** A node of a syntax tree. */
export type Expr = ReturnType<typeof parse>['expr']
type Kind<Case extends Expr['exprKind']['case']> = Extract<Expr['exprKind'], { case: Case }>['value']
export type Call = Kind<'callExpr'>
/** What the macros `all`, `exists`, `exists_one`, `filter` and `map` become. */
export type Loop = Kind<'comprehensionExpr'>
type Constant = Kind<'constExpr'>['constantKind']

/** The nodes directly below `expr`. */
export function children({ exprKind: { case: kind, value } }: Expr): Expr[] {
  const parts = (): (Expr | undefined)[] => {
    if (kind === 'selectExpr') return [value.operand]
    if (kind === 'callExpr') return [value.target, ...value.args]
    if (kind === 'listExpr') return value.elements
    if (kind === 'structExpr') {
      return value.entries.flatMap((entry) => [
        entry.keyKind.case === 'mapKey' ? entry.keyKind.value : undefined,
        entry.value,
      ])
    }
    if (kind !== 'comprehensionExpr') return []
    return [value.iterRange, value.accuInit, value.loopCondition, value.loopStep, value.result]
  }
  return parts().filter((part) => part !== undefined)
}

/** A call that was not in the text. */
export function callOf(name: string, ...args: (Expr | undefined)[]): Expr {
  const value: Call = {
    $typeName: 'cel.expr.Expr.Call',
    function: name,
    args: args.filter((arg) => arg !== undefined),
  }
  return { $typeName: 'cel.expr.Expr', id: 0n, exprKind: { case: 'callExpr', value } }
}

/** A constant that was not in the text. */
export function constantOf(constantKind: Constant): Expr {
  const value: Kind<'constExpr'> = { $typeName: 'cel.expr.Constant', constantKind }
  return { $typeName: 'cel.expr.Expr', id: 0n, exprKind: { case: 'constExpr', value } }
}
