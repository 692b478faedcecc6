"""As much of Android's classes as the app's Kotlin uses, with Android's signatures and no bodies: enough to compile it."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

ANDROID = "{http://schemas.android.com/apk/res/android}"

CLASSES = {
    "android.app.Activity": """extends android.content.Context {
        protected void onCreate(android.os.Bundle state) {} protected void onDestroy() {}
        protected void onStart() {} protected void onStop() {}
        public boolean isChangingConfigurations() { return false; }
        public void setContentView(int layout) {} public <T extends android.view.View> T findViewById(int id) { return null; }
        public android.view.Window getWindow() { return null; } public boolean isFinishing() { return false; } }""",
    "android.content.ClipData": "{ public static ClipData newRawUri(CharSequence label, android.net.Uri uri) { return null; } }",
    "android.content.Context": """{
        public final String getString(int id) { return null; }
        public final String getString(int id, Object... values) { return null; }
        public java.io.File getExternalFilesDir(String type) { return null; } public java.io.File getCacheDir() { return null; }
        public String getPackageName() { return null; } public void startActivity(Intent intent) {} }""",
    "android.content.Intent": """{
        public static final String ACTION_SEND = "", EXTRA_STREAM = ""; public static final int FLAG_GRANT_READ_URI_PERMISSION = 1;
        public Intent(String action) {} public String getType() { return null; } public Intent setType(String type) { return null; }
        public Intent putExtra(String name, android.os.Parcelable value) { return null; }
        public ClipData getClipData() { return null; } public void setClipData(ClipData data) {}
        public Intent addFlags(int flags) { return null; }
        public static Intent createChooser(Intent target, CharSequence title) { return null; } }""",
    "android.graphics.Bitmap": """{
        public enum Config { ARGB_8888 } public enum CompressFormat { PNG }
        public static Bitmap createBitmap(int[] colors, int width, int height, Config config) { return null; }
        public boolean compress(CompressFormat format, int quality, java.io.OutputStream stream) { return true; } }""",
    "android.net.Uri": "implements android.os.Parcelable {}",
    "android.os.Bundle": "{}",
    "android.os.Handler": "{ public Handler(Looper looper) {} public final boolean post(Runnable action) { return true; } }",
    "android.os.Looper": "{ public static Looper getMainLooper() { return null; } }",
    "android.os.Parcelable": "interface {}",
    "android.text.Editable": "interface extends CharSequence {}",
    "android.view.View": """{
        public static final int VISIBLE = 0, GONE = 8; public interface OnClickListener { void onClick(View view); }
        public int getVisibility() { return 0; } public void setVisibility(int visibility) {}
        public boolean isEnabled() { return true; } public void setEnabled(boolean enabled) {}
        public void setOnClickListener(OnClickListener listener) {} }""",
    "android.view.Window": "{ public void addFlags(int flags) {} public void clearFlags(int flags) {} }",
    "android.view.WindowManager": """interface {
        class LayoutParams { public static final int FLAG_KEEP_SCREEN_ON = 128; } }""",
    "android.widget.AdapterView<T extends Adapter>": """abstract extends android.view.View {
        public interface OnItemSelectedListener {
            void onItemSelected(AdapterView<?> parent, android.view.View view, int position, long id);
            void onNothingSelected(AdapterView<?> parent); }
        public abstract T getAdapter(); public abstract void setAdapter(T adapter); public abstract void setSelection(int position);
        public Object getSelectedItem() { return null; } public int getSelectedItemPosition() { return 0; }
        public final OnItemSelectedListener getOnItemSelectedListener() { return null; }
        public void setOnItemSelectedListener(OnItemSelectedListener listener) {} }""",
    "android.widget.Adapter": "interface {}",
    "android.widget.ArrayAdapter<T>": """implements SpinnerAdapter {
        public ArrayAdapter(android.content.Context context, int layout, java.util.List<T> rows) {} }""",
    "android.widget.Button": "extends TextView {}",
    "android.widget.CheckBox": """extends Button {
        public boolean isChecked() { return true; } public void setChecked(boolean on) {} }""",
    "android.widget.EditText": "extends TextView { public android.text.Editable getText() { return null; } }",
    "android.widget.ImageView": "extends android.view.View { public void setImageBitmap(android.graphics.Bitmap bitmap) {} }",
    "android.widget.ProgressBar": """extends android.view.View {
        public boolean isIndeterminate() { return true; } public void setIndeterminate(boolean on) {}
        public int getMax() { return 0; } public void setMax(int max) {}
        public int getProgress() { return 0; } public void setProgress(int progress) {} }""",
    "android.widget.Spinner": """extends AdapterView<SpinnerAdapter> {
        public SpinnerAdapter getAdapter() { return null; } public void setAdapter(SpinnerAdapter adapter) {}
        public void setSelection(int position) {} }""",
    "android.widget.SpinnerAdapter": "interface extends Adapter {}",
    "android.widget.TextView": """extends android.view.View {
        public CharSequence getText() { return null; } public final void setText(CharSequence text) {}
        public final void setText(int id) {} }""",
    "android.R": "{ public static final class layout { public static final int simple_spinner_dropdown_item = 1; } }",
    "androidx.core.content.FileProvider": """{
        public static android.net.Uri getUriForFile(android.content.Context context, String authority, java.io.File file) {
            return null; } }""",
}  # fmt: skip
"""By name; ``interface`` and ``abstract`` stand first."""


def resources(res: Path) -> dict[str, set[str]]:
    """Names that the resource compiler would put into R, by kind."""
    found = {
        "layout": {path.stem for path in res.glob("layout/*.xml")},
        "xml": {path.stem for path in res.glob("xml/*.xml")},
    }
    found["string"] = {
        str(node.get("name")) for node in ElementTree.parse(res / "values" / "strings.xml").iter("string")
    }
    nodes = [node for path in res.glob("layout/*.xml") for node in ElementTree.parse(path).iter()]
    found["id"] = {re.sub(r"^@\+id/", "", name) for node in nodes if (name := node.get(f"{ANDROID}id"))}
    return found


def write_standin(folder: Path, res: Path) -> list[Path]:
    """Java sources of the classes above and of the app's R."""
    rows = {**CLASSES, "org.dqtoolchain.draw.R": "{"}
    for kind, names in resources(res).items():
        fields = " ".join(f"public static final int {name} = 1;" for name in sorted(names))
        rows["org.dqtoolchain.draw.R"] += f" public static final class {kind} {{ {fields} }}"
    rows["org.dqtoolchain.draw.R"] += " }"
    paths = []
    for full, body in rows.items():
        package, name = re.sub("<.*", "", full).rpartition(".")[::2]
        kind = next((word for word in ("interface", "abstract") if body.startswith(word)), "")
        words = "interface" if kind == "interface" else f"{kind} class"
        path = folder / package.replace(".", "/") / f"{name}.java"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"package {package};\npublic {words} {full.removeprefix(f'{package}.')} {body.removeprefix(kind)}\n"
        )
        paths.append(path)
    return paths
